"""Tokenizers and processors: made for a checkpoint that is built here, and loaded from any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import transformers

from pytest_hfaccel.checkpoints.tokenizers import ctc_tokenizer, match_config_to_tokenizer, train_tokenizer
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


def load_processors(directory: Path, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Load what lies in a checkpoint's directory.

    Returns:
        `processor` where the checkpoint has one, and its parts (`tokenizer`, `image_processor`, `feature_extractor`);
        the keys are the parameter names of `transformers.pipeline`.
    """
    names = {path.name for path in directory.iterdir()}
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    loaded: dict[str, Any] = {}
    if "processor_config.json" in names or {"preprocessor_config.json", "tokenizer_config.json"} <= names:
        processor = transformers.AutoProcessor.from_pretrained(directory, **options)
        parts = ("tokenizer", "image_processor", "feature_extractor")
        loaded = {part: value for part in parts if (value := getattr(processor, part, None)) is not None}
        if loaded or getattr(processor, "video_processor", None) is not None:
            return {**loaded, "processor": processor}
    if names & _TOKENIZER_FILES:
        loaded["tokenizer"] = transformers.AutoTokenizer.from_pretrained(directory, **options)
    if "preprocessor_config.json" in names:
        config = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8"))
        if "feature_extractor_type" in config:
            loaded["feature_extractor"] = transformers.AutoFeatureExtractor.from_pretrained(directory, **options)
        else:
            loaded["image_processor"] = transformers.AutoImageProcessor.from_pretrained(directory, **options)
    return loaded


def make_processors(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what a built checkpoint needs besides weights.

    Args:
        config: The model's config; special ids and vocabulary are made to agree with the tokenizer.
        spec: The model; its task says what a model type without an entry in `PROCESSORS` gets.

    Raises:
        LoadError: The task needs a processor that cannot be made for this model type: one with a chat template or
            prompts.
    """
    maker = PROCESSORS.get(config.model_type)
    if maker is not None:
        return maker(config)
    recipe = task_of(spec).recipe
    if recipe not in _PARTS_BY_RECIPE:
        raise LoadError(
            f"there is no rule to make a processor for model type {config.model_type!r} for {spec.task}.",
            stage="resolve",
            cause=Cause.TINY_CHECKPOINT,
            hint="An entry in PROCESSORS of checkpoints/processors.py would; a pretrained checkpoint brings its own.",
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
    types = (config.model_type, config.get_text_config().model_type)
    named = next((name for each in types if (name := processor_class_name("tokenization", each))), usual)
    try:
        tokenizer = train_tokenizer(named)
    except (AttributeError, ImportError, NotImplementedError, TypeError, ValueError):
        # A tokenizer written in Python, or one that only exists as a file, cannot be trained: its kind does not
        # matter to the model.
        tokenizer = train_tokenizer(usual)
    missing = {"pad_token": "<pad>"} if tokenizer.pad_token is None else {}
    if spec.task == "fill-mask" and tokenizer.mask_token is None:
        missing["mask_token"] = "<mask>"
    if missing:
        tokenizer.add_special_tokens(missing)
    return tokenizer


def _image_processor(config: Any, spec: ModelSpec) -> Any:
    """Make a processor in the form in which its class states sizes: height and width, or the shorter edge."""
    # Where a model type has none of its own, one that has the task's post-processing.
    usual = "DetrImageProcessor" if spec.task == "object-detection" else "ViTImageProcessor"
    processor_class = getattr(transformers, processor_class_name("image_processing", config.model_type) or usual)
    side = getattr(getattr(config, "vision_config", config), "image_size", None)
    side = side[0] if isinstance(side, list | tuple) else side
    side = side if isinstance(side, int) else _DEFAULT_SIDE
    default = processor_class()
    options: dict[str, dict[str, int]] = {}
    for name in ("size", "crop_size", "pad_size"):
        edges = {edge: side for edge, pixels in dict(getattr(default, name, None) or {}).items() if pixels}
        options |= {name: edges} if edges else {}
    return processor_class(**options)


def _feature_extractor(config: Any, _spec: ModelSpec) -> Any:
    class_name = processor_class_name("feature_extraction", config.model_type) or "Wav2Vec2FeatureExtractor"
    bins = getattr(config, "num_mel_bins", None)
    return getattr(transformers, class_name)(**({"num_mel_bins": bins} if isinstance(bins, int) else {}))


_PARTS_BY_RECIPE: dict[str, tuple[Callable[[Any, ModelSpec], Any], ...]] = {
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


def _matching_tokenizer(config: Any, tokenizer_class: str, **special: str) -> list[Any]:
    """Make a tokenizer of a class, with further named special tokens such as `pad_token`."""
    tokenizer = train_tokenizer(tokenizer_class, **special)
    match_config_to_tokenizer(config, tokenizer)
    return [tokenizer]


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _square_image_processor(config: Any, class_name: str, *, crops: bool = False) -> list[Any]:
    """Make a processor for a model of square images, perhaps with a crop after resizing."""
    side = _square(config.image_size)
    return [getattr(transformers, class_name)(size=side, **({"crop_size": side} if crops else {}))]


def _cropping_image_processor(class_name: str, side: int, **options: Any) -> Any:
    """Make a processor that scales the shorter edge and cuts out the middle, as CLIP's does."""
    return getattr(transformers, class_name)(size={"shortest_edge": side}, crop_size=_square(side), **options)


def _detr_image_processor(_config: Any) -> list[Any]:
    """Make DETR's processor, which takes images of any size: small ones here."""
    return [transformers.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})]


def _sam_processor(config: Any) -> list[Any]:
    """Make SAM's processor: pictures padded to a square, with points or boxes; masks are a quarter as large."""
    side = config.vision_config.image_size
    processor = transformers.SamImageProcessor(
        size={"longest_edge": side},
        pad_size=_square(side),
        mask_size={"longest_edge": side // 4},
        mask_pad_size=_square(side // 4),
    )
    return [transformers.SamProcessor(image_processor=processor)]


WHISPER_TOKENS = tuple(
    f"<|{name}|>"
    for name in "startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps".split()  # noqa: SIM905
)
"""Whisper's control tokens in the order of its vocabulary, with one language."""

_POSITIONS_PER_SECOND = 50
"""Whisper has a hundred spectrogram frames per second, and two frames per position."""


def _whisper_processor(config: Any) -> list[Any]:
    """Make Whisper's processor; the spectrogram's length follows from the encoder's positions."""
    tokenizer = train_tokenizer("WhisperTokenizer", extra=WHISPER_TOKENS)
    # These name tokens of the real vocabulary.
    config.begin_suppress_tokens = config.suppress_tokens = None
    match_config_to_tokenizer(config, tokenizer)
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids(WHISPER_TOKENS[0])
    config.pad_token_id = tokenizer.eos_token_id
    features = transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // _POSITIONS_PER_SECOND
    )
    return [transformers.WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)]


def _ctc_processor(config: Any) -> list[Any]:
    """Make Wav2Vec2's processor; models with group normalisation take no attention mask."""
    tokenizer = ctc_tokenizer()
    match_config_to_tokenizer(config, tokenizer)
    features = transformers.Wav2Vec2FeatureExtractor(
        return_attention_mask=getattr(config, "feat_extract_norm", "layer") == "layer"
    )
    return [transformers.Wav2Vec2Processor(feature_extractor=features, tokenizer=tokenizer)]


def _clap_processor(config: Any) -> list[Any]:
    """Make CLAP's processor: text and one second of sound.

    The real one takes ten seconds; the spectrogram is stretched to the model's size in either case.
    """
    [tokenizer] = _matching_tokenizer(config, "RobertaTokenizer")
    features = transformers.ClapFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins, max_length_s=1, truncation="rand_trunc", padding="repeatpad"
    )
    return [transformers.ClapProcessor(feature_extractor=features, tokenizer=tokenizer)]


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A chat with images, in the form of LLaVA's."""

_IMAGE_MARK = "<image>"
_CLASS_TOKENS = 1
"""The vision model's class token, which LLaVA counts and then drops."""


def _llava_processor(config: Any, *, tiled: bool) -> list[Any]:
    """Make LLaVA's processor, or LLaVA-NeXT's, which also cuts a picture into tiles."""
    tokenizer = train_tokenizer("LlamaTokenizer", extra=(_IMAGE_MARK,), pad_token="<pad>")
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids(_IMAGE_MARK)
    match_config_to_tokenizer(config, tokenizer)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    config.image_seq_length = (side // patch) ** 2
    options = {"image_grid_pinpoints": config.image_grid_pinpoints} if tiled else {}
    pictures = _cropping_image_processor("LlavaNextImageProcessor" if tiled else "CLIPImageProcessor", side, **options)
    processor = transformers.LlavaNextProcessor if tiled else transformers.LlavaProcessor
    return [
        processor(
            image_processor=pictures,
            tokenizer=tokenizer,
            patch_size=patch,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=_IMAGE_MARK,
            num_additional_image_tokens=_CLASS_TOKENS,
            chat_template=CHAT_TEMPLATE,
        )
    ]


def _dual_encoder_processor(config: Any, *, image_processor: str, processor: str) -> list[Any]:
    """Make a processor of text, and of images or the frames of videos."""
    [tokenizer] = _matching_tokenizer(config, "CLIPTokenizer")
    images = _cropping_image_processor(image_processor, config.vision_config.image_size)
    return [getattr(transformers, processor)(image_processor=images, tokenizer=tokenizer)]


PROCESSORS: dict[str, Callable[[Any], list[Any]]] = {
    "bert": partial(_matching_tokenizer, tokenizer_class="BertTokenizer"),
    "distilbert": partial(_matching_tokenizer, tokenizer_class="DistilBertTokenizer"),
    "roberta": partial(_matching_tokenizer, tokenizer_class="RobertaTokenizer"),
    "gpt2": partial(_matching_tokenizer, tokenizer_class="GPT2Tokenizer", pad_token="<|pad|>"),
    "t5": partial(_matching_tokenizer, tokenizer_class="T5Tokenizer"),
    "llama": partial(_matching_tokenizer, tokenizer_class="LlamaTokenizer", pad_token="<pad>"),
    "qwen2": partial(_matching_tokenizer, tokenizer_class="Qwen2Tokenizer"),
    "vit": partial(_square_image_processor, class_name="ViTImageProcessor"),
    "deit": partial(_square_image_processor, class_name="DeiTImageProcessor", crops=True),
    "detr": _detr_image_processor,
    "sam": _sam_processor,
    "clap": _clap_processor,
    "whisper": _whisper_processor,
    "wav2vec2": _ctc_processor,
    "clip": partial(_dual_encoder_processor, image_processor="CLIPImageProcessor", processor="CLIPProcessor"),
    "xclip": partial(_dual_encoder_processor, image_processor="VideoMAEImageProcessor", processor="XCLIPProcessor"),
    "llava": partial(_llava_processor, tiled=False),
    "llava_next": partial(_llava_processor, tiled=True),
}
"""By model type: tokenizer and processors where those that transformers names for it would not do. Each takes a config,
changes it where it must agree with the tokenizer, and returns what is saved beside the weights."""
