"""Processors for model types without a maker of their own, of the classes that transformers' own tables name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_hfaccel.checkpoints.makers.images import like_the_class
from pytest_hfaccel.checkpoints.makers.texts import agree, ctc_tokenizer, train_tokenizer
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import GENERIC, task_of

_DEFAULT_SIDE = 64


def by_task(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what the task's inputs need: a tokenizer, an image processor, a feature extractor.

    Raises:
        LoadError: The task's inputs need a processor with a chat template or prompts.
    """
    recipe = task_of(spec).recipe
    if recipe not in _PARTS:
        raise LoadError(
            f"nobody knows how to make the processor of model type {config.model_type!r} for {spec.task}.",
            stage="resolve",
            hint="A maker in checkpoints/makers would; a pretrained checkpoint brings its own.",
        )
    return [made for part in _PARTS[recipe] if (made := part(config, spec)) is not None]


def _tokenizer(config: Any, spec: ModelSpec) -> Any:
    if spec.architecture.endswith("ForCTC"):
        tokenizer = ctc_tokenizer()
    elif not isinstance(getattr(config.get_text_config(), "vocab_size", None), int):
        return None
    else:
        tokenizer = _trained(config, spec)
    agree(config, tokenizer)
    return tokenizer


def _trained(config: Any, spec: ModelSpec) -> Any:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    usual = "GPT2Tokenizer" if task_of(spec).generates else "BertTokenizer"
    named = TOKENIZER_MAPPING_NAMES.get(config.model_type) or TOKENIZER_MAPPING_NAMES.get(
        config.get_text_config().model_type
    )
    try:
        tokenizer = train_tokenizer(named or usual)
    except (AttributeError, ImportError, NotImplementedError, TypeError, ValueError):
        # A tokenizer written in Python, or one that only exists as a file, cannot be trained: its kind does not
        # matter to the model.
        tokenizer = train_tokenizer(usual)
    missing = {"pad_token": "<pad>"} if tokenizer.pad_token is None else {}
    if spec.task == "fill-mask" and tokenizer.mask_token is None:
        missing["mask_token"] = "<mask>"  # noqa: S105
    if missing:
        tokenizer.add_special_tokens(missing)
    return tokenizer


def _image_processor(config: Any, spec: ModelSpec) -> Any:
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    # Where a model type has none of its own, one that has the task's post-processing.
    usual = "DetrImageProcessor" if spec.task == "object-detection" else "ViTImageProcessor"
    named = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type)
    # By kind (torchvision, pil) since transformers 5; the name of the first serves for both.
    class_name = next(iter(sorted(named.values(), key=len)), None) if isinstance(named, dict) else named
    return like_the_class(class_name or usual, _side(config))


def _side(config: Any) -> int:
    vision = getattr(config, "vision_config", config)
    side = getattr(vision, "image_size", None)
    side = side[0] if isinstance(side, list | tuple) else side
    return side if isinstance(side, int) else _DEFAULT_SIDE


def _feature_extractor(config: Any, spec: ModelSpec) -> Any:
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    del spec
    class_name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type, "Wav2Vec2FeatureExtractor")
    bins = getattr(config, "num_mel_bins", None)
    return getattr(transformers, class_name)(**({"num_mel_bins": bins} if isinstance(bins, int) else {}))


_Part = Callable[[Any, ModelSpec], Any]

_PARTS: dict[str, tuple[_Part, ...]] = {
    "text": (_tokenizer,),
    "seq2seq": (_tokenizer,),
    "image": (_image_processor,),
    "speech": (_feature_extractor, _tokenizer),
    "image-text": (_tokenizer, _image_processor),
    "video-text": (_tokenizer, _image_processor),
    "audio-text": (_tokenizer, _feature_extractor),
    # Inputs from the signature need no processor.
    GENERIC: (),
}
