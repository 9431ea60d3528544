"""Tokenizers and processors: made for a checkpoint that is built here, and loaded from any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.tables import PROCESSORS
from pytest_hfaccel.checkpoints.tables.tokenizers import ctc_tokenizer, match_config_to_tokenizer, train_tokenizer
from pytest_hfaccel.checkpoints.tables.vision import image_processor
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import GENERIC, task_of
from pytest_hfaccel.upstream.transformers import processor_class_name

_DEFAULT_SIDE = 64
_TOKENIZER_FILES = frozenset(
    {"tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"}
)
"""Old checkpoints have a vocabulary only."""

_PARTS = ("tokenizer", "image_processor", "feature_extractor", "video_processor")


def load_processors(directory: Path, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Load what lies in a checkpoint's directory.

    Returns:
        `processor` where the checkpoint has one, and its parts (`tokenizer`, `image_processor`, `feature_extractor`);
        the keys are the parameter names of `transformers.pipeline`.
    """
    import transformers

    names = {path.name for path in directory.iterdir()}
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    loaded: dict[str, Any] = {}
    if "processor_config.json" in names or {"preprocessor_config.json", "tokenizer_config.json"} <= names:
        processor = transformers.AutoProcessor.from_pretrained(directory, **options)
        loaded = {part: getattr(processor, part) for part in _PARTS if getattr(processor, part, None) is not None}
        if loaded:
            loaded["processor"] = processor
            return {name: value for name, value in loaded.items() if name != "video_processor"}
    if names & _TOKENIZER_FILES:
        loaded["tokenizer"] = transformers.AutoTokenizer.from_pretrained(directory, **options)
    if "preprocessor_config.json" in names:
        kind = _preprocessor_kind(directory)
        loader = transformers.AutoFeatureExtractor if kind == "feature_extractor" else transformers.AutoImageProcessor
        loaded[kind] = loader.from_pretrained(directory, **options)
    return loaded


def _preprocessor_kind(directory: Path) -> str:
    config = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8"))
    return "feature_extractor" if "feature_extractor_type" in config else "image_processor"


def make_processors(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what a built checkpoint needs besides weights.

    Args:
        config: The model's config; special ids and vocabulary are made to agree with the tokenizer.
        spec: The model; its task says what a model type without an entry in the tables gets.

    Raises:
        LoadError: The task needs a processor that cannot be made for this model type.
    """
    maker = PROCESSORS.get(config.model_type)
    return maker(config) if maker is not None else _by_task(config, spec)


def _by_task(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what the task's inputs need: a tokenizer, an image processor, a feature extractor.

    Raises:
        LoadError: The task's inputs need a processor with a chat template or prompts.
    """
    recipe = task_of(spec).recipe
    if recipe not in _PARTS_BY_RECIPE:
        raise LoadError(
            f"there is no rule to make a processor for model type {config.model_type!r} for {spec.task}.",
            stage="resolve",
            cause=Cause.TINY_CHECKPOINT,
            hint="An entry in PROCESSORS of checkpoints/tables would; a pretrained checkpoint brings its own.",
        )
    return [made for part in _PARTS_BY_RECIPE[recipe] if (made := part(config, spec)) is not None]


def _tokenizer(config: Any, spec: ModelSpec) -> Any:
    if spec.architecture.endswith("ForCTC"):
        tokenizer = ctc_tokenizer()
    elif not isinstance(getattr(config.get_text_config(), "vocab_size", None), int):
        return None
    else:
        tokenizer = _trained(config, spec)
    match_config_to_tokenizer(config, tokenizer)
    return tokenizer


def _trained(config: Any, spec: ModelSpec) -> Any:
    usual = "GPT2Tokenizer" if task_of(spec).generates else "BertTokenizer"
    named = processor_class_name("tokenization", config.model_type) or processor_class_name(
        "tokenization", config.get_text_config().model_type
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
    # Where a model type has none of its own, one that has the task's post-processing.
    usual = "DetrImageProcessor" if spec.task == "object-detection" else "ViTImageProcessor"
    named = processor_class_name("image_processing", config.model_type)
    return _image_processor_like(named or usual, _side(config))


def _side(config: Any) -> int:
    vision = getattr(config, "vision_config", config)
    side = getattr(vision, "image_size", None)
    side = side[0] if isinstance(side, list | tuple) else side
    return side if isinstance(side, int) else _DEFAULT_SIDE


def _feature_extractor(config: Any, spec: ModelSpec) -> Any:
    import transformers

    del spec
    class_name = processor_class_name("feature_extraction", config.model_type) or "Wav2Vec2FeatureExtractor"
    bins = getattr(config, "num_mel_bins", None)
    return getattr(transformers, class_name)(**({"num_mel_bins": bins} if isinstance(bins, int) else {}))


_Part = Callable[[Any, ModelSpec], Any]

_PARTS_BY_RECIPE: dict[str, tuple[_Part, ...]] = {
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


def _image_processor_like(class_name: str, side: int) -> Any:
    """Make a processor in the form in which its class states sizes: height and width, or the shorter edge."""
    import transformers

    usual = getattr(transformers, class_name)()
    options = {name: _resized(getattr(usual, name, None), side) for name in ("size", "crop_size", "pad_size")}
    return image_processor(class_name, **{name: value for name, value in options.items() if value})


def _resized(size: Any, side: int) -> dict[str, int]:
    return {edge: side for edge, pixels in dict(size or {}).items() if pixels}
