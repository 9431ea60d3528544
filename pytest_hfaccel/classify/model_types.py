"""Model type -> family and subfamily: what a model of that type is for, by the heads transformers gives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from pytest_hfaccel.registry.auto_classes import AutoEntry, auto_entries


@dataclass(frozen=True)
class AutoTables:
    """What the auto mappings say.

    Attributes:
        heads_of_type: Model type -> the heads (`FOR_CAUSAL_LM`, `FOR_CTC`, ...; the base model is ``) that list it.
        heads_of_class: Class name -> head -> the model types it serves there.
    """

    heads_of_type: Mapping[str, frozenset[str]]
    heads_of_class: Mapping[str, Mapping[str, tuple[str, ...]]]


@cache
def auto_tables() -> AutoTables:
    """Return the tables of the installed transformers; empty ones where it is not installed."""
    return tables_of(auto_entries())


def tables_of(entries: Iterable[AutoEntry]) -> AutoTables:
    """Group entries of the auto mappings by model type and by class."""
    types: dict[str, set[str]] = {}
    classes: dict[str, dict[str, list[str]]] = {}
    for entry in entries:
        head = f"FOR_{entry.head}" if entry.head else ""
        types.setdefault(entry.model_type, set()).add(head)
        classes.setdefault(entry.architecture, {}).setdefault(head, []).append(entry.model_type)
    return AutoTables(
        {model_type: frozenset(heads) for model_type, heads in types.items()},
        {name: {head: tuple(of) for head, of in heads.items()} for name, heads in classes.items()},
    )


Kind = tuple[str, str | None]
"""A family and, where one fits, a subfamily."""

MASKED: Kind = ("embedding", "masked_lm")
SENTENCE: Kind = ("embedding", "sentence_transformer")
CLASSIFIER: Kind = ("embedding", "token_classifier")
CAUSAL: Kind = ("text_generation", "causal_lm")
CHAT: Kind = ("text_generation", "chat_model")
SEQ2SEQ: Kind = ("text_generation", "seq2seq")
IMAGE: Kind = ("vision", "image_classifier")
DETECTOR: Kind = ("vision", "object_detector")
SEGMENTATION: Kind = ("vision", "segmentation")
DEPTH: Kind = ("vision", "depth_estimation")
VISION: Kind = ("vision", None)
SPEECH: Kind = ("audio", "speech_recognition")
SOUND: Kind = ("audio", "audio_classifier")
TTS: Kind = ("audio", "text_to_speech")
AUDIO: Kind = ("audio", None)
VLM: Kind = ("multimodal", "vision_language")
DUAL: Kind = ("multimodal", "image_text_encoder")
DOCUMENT: Kind = ("multimodal", "document_qa")
VIDEO: Kind = ("video", "video_classifier")
VIDEO_TEXT: Kind = ("video", "video_text_encoder")
SERIES: Kind = ("time_series", "forecaster")

KIND_OF_HEAD: Mapping[str, Kind] = {
    "FOR_DOCUMENT_QUESTION_ANSWERING": DOCUMENT,
    "FOR_CTC": SPEECH,
    "FOR_RNNT": SPEECH,
    "FOR_TDT": SPEECH,
    "FOR_SPEECH_SEQ_2_SEQ": SPEECH,
    "FOR_IMAGE_TEXT_TO_TEXT": VLM,
    "FOR_MULTIMODAL_LM": VLM,
    "FOR_VISUAL_QUESTION_ANSWERING": VLM,
    "FOR_RETRIEVAL": DUAL,
    "FOR_TEXT_TO_SPECTROGRAM": TTS,
    "FOR_TEXT_TO_WAVEFORM": TTS,
    "FOR_AUDIO_TOKENIZATION": AUDIO,
    "FOR_AUDIO_CLASSIFICATION": SOUND,
    "FOR_AUDIO_FRAME_CLASSIFICATION": SOUND,
    "FOR_AUDIO_XVECTOR": SOUND,
    "FOR_ZERO_SHOT_IMAGE_CLASSIFICATION": DUAL,
    "FOR_VIDEO_CLASSIFICATION": VIDEO,
    "FOR_TIME_SERIES_PREDICTION": SERIES,
    "FOR_TIME_SERIES_CLASSIFICATION": SERIES,
    "FOR_TIME_SERIES_REGRESSION": SERIES,
    "FOR_MASK_GENERATION": SEGMENTATION,
    "FOR_OBJECT_DETECTION": DETECTOR,
    "FOR_ZERO_SHOT_OBJECT_DETECTION": DETECTOR,
    "FOR_UNIVERSAL_SEGMENTATION": SEGMENTATION,
    "FOR_INSTANCE_SEGMENTATION": SEGMENTATION,
    "FOR_IMAGE_SEGMENTATION": SEGMENTATION,
    "FOR_DEPTH_ESTIMATION": DEPTH,
    "FOR_IMAGE_CLASSIFICATION": IMAGE,
    "FOR_SEMANTIC_SEGMENTATION": SEGMENTATION,
    "FOR_KEYPOINT_DETECTION": VISION,
    "FOR_KEYPOINT_MATCHING": VISION,
    "FOR_POSE_ESTIMATION": VISION,
    "FOR_NORMAL_ESTIMATION": VISION,
    "FOR_POINTMAP_ESTIMATION": VISION,
    "FOR_IMAGE_MATTING": VISION,
    "FOR_IMAGE_TO_IMAGE": VISION,
    "FOR_TEXT_RECOGNITION": VISION,
    "FOR_TABLE_RECOGNITION": VISION,
    "FOR_IMAGE": IMAGE,
    "FOR_MASKED_IMAGE_MODELING": IMAGE,
    "FOR_CAUSAL_IMAGE_MODELING": IMAGE,
    "FOR_BACKBONE": IMAGE,
    "FOR_SEQ_TO_SEQ_CAUSAL_LM": SEQ2SEQ,
    "FOR_TABLE_QUESTION_ANSWERING": CLASSIFIER,
    "FOR_MASKED_LM": MASKED,
    "FOR_CAUSAL_LM": CAUSAL,
    "FOR_TEXT_ENCODING": MASKED,
    "FOR_SEQUENCE_CLASSIFICATION": MASKED,
    "FOR_QUESTION_ANSWERING": MASKED,
    "FOR_TOKEN_CLASSIFICATION": MASKED,
    "FOR_DECISION": CAUSAL,
}
"""What the models under a head are for. The first head that lists a type decides: the heads that only one modality has
come before those that several have."""

# Types whose heads do not tell what they are for: no head at all, or heads of two modalities.
_EXCEPTIONS: dict[str, Kind] = {
    "aimv2": DUAL,
    "audioflamingo3": SPEECH,
    "autoformer": SERIES,
    "bridgetower": DUAL,
    "bros": DOCUMENT,
    "clap": SOUND,
    "clipseg": SEGMENTATION,
    "clvp": TTS,
    "decision_transformer": SERIES,
    "dia": TTS,
    "donut-swin": DOCUMENT,
    "dpr": SENTENCE,
    "encodec": AUDIO,
    "flava": DUAL,
    "glm_image": VLM,
    "glmasr": SPEECH,
    "groupvit": DUAL,
    "gte": SENTENCE,
    "informer": SERIES,
    "jina_embeddings_v3": SENTENCE,
    "layoutlm": DOCUMENT,
    "layoutlmv2": DOCUMENT,
    "layoutlmv3": DOCUMENT,
    "lilt": DOCUMENT,
    "lxmert": VLM,
    "markuplm": DOCUMENT,
    "mgp-str": VISION,
    "mimi": AUDIO,
    "mistral4": CAUSAL,
    "modernvbert": DUAL,
    "moshi": SPEECH,
    "musicflamingo": SOUND,
    "neomme": MASKED,
    "nomic_bert": SENTENCE,
    "perceiver": MASKED,
    "pixtral": VLM,
    "pix2struct": DOCUMENT,
    "pop2piano": AUDIO,
    "qwen2_audio": SPEECH,
    "radio": IMAGE,
    "reformer": CAUSAL,
    "segformer": SEGMENTATION,
    "seggpt": SEGMENTATION,
    "splinter": CLASSIFIER,
    "time_series_transformer": SERIES,
    "trocr": VLM,
    "tvp": VIDEO_TEXT,
    "udop": DOCUMENT,
    "ultravbert": DUAL,
    "univnet": TTS,
    "uvdoc": VISION,
    "vibevoice": TTS,
    "videoprism": VIDEO_TEXT,
    "vision-text-dual-encoder": DUAL,
    "visual_bert": VLM,
    "xclip": VIDEO_TEXT,
    "xcodec": AUDIO,
}

# The last resort for types of which only a base model is listed: the words of their names.
_WORDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"embedding"), SENTENCE),
    (re.compile(r"(^|_)(audio|speech|voice|acoustic|asr|codec|music)"), AUDIO),
    (re.compile(r"tts"), TTS),
    (re.compile(r"video"), VIDEO),
    (re.compile(r"(^|[_-])(vision|image|vq\w*|visual)"), IMAGE),
    (re.compile(r"^sam\d*(_|$)"), SEGMENTATION),
    (re.compile(r"(^|_)text|assistant"), CAUSAL),
    (re.compile(r"time_?series"), SERIES),
    (re.compile(r"ocr|_vl(_|$)"), VLM),
    (re.compile(r"qformer"), DUAL),
)


def family_of_type(model_type: str, tables: AutoTables | None = None) -> Kind | None:
    """Return the family and subfamily of a model type, or `None` when nothing tells."""
    return (_families_of_installed() if tables is None else families_of(tables)).get(model_type)


@cache
def _families_of_installed() -> Mapping[str, Kind]:
    return families_of(auto_tables())


def families_of(tables: AutoTables) -> dict[str, Kind]:
    """Return family and subfamily of every model type of the tables that has one."""
    found = {model_type: _by_head(model_type, heads) for model_type, heads in tables.heads_of_type.items()}
    for model_type, kind in found.items():
        if kind is None:
            found[model_type] = _by_words(model_type) or _by_parent(model_type, found)
    return {model_type: kind for model_type, kind in found.items() if kind}


def _by_head(model_type: str, heads: frozenset[str]) -> Kind | None:
    if model_type in _EXCEPTIONS:
        return _EXCEPTIONS[model_type]
    return next((kind for head, kind in KIND_OF_HEAD.items() if head in heads), None)


def _by_words(model_type: str) -> Kind | None:
    return next((kind for pattern, kind in _WORDS if pattern.search(model_type)), None)


def _by_parent(model_type: str, found: Mapping[str, Kind | None]) -> Kind | None:
    """`parakeet_encoder` is what its siblings `parakeet_ctc`, ... are."""
    stem = model_type.rpartition("_")[0] or model_type
    return next((kind for other, kind in found.items() if kind and other.startswith(stem)), None)
