"""What the architecture class says: the caller's, that of a `config.json`, of the registry; and a guess from hardware.

A class of the installed transformers is looked up in its auto mappings. Any other class (remote code, other versions)
is read: the head by its suffix, the modality by the words before it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pytest_hfaccel.classify.known_names import find_marker
from pytest_hfaccel.classify.model_types import (
    CAUSAL,
    CLASSIFIER,
    DEPTH,
    DETECTOR,
    DOCUMENT,
    DUAL,
    IMAGE,
    KIND_OF_HEAD,
    MASKED,
    SEGMENTATION,
    SENTENCE,
    SEQ2SEQ,
    SERIES,
    SOUND,
    SPEECH,
    TTS,
    VIDEO,
    VLM,
    Kind,
    auto_tables,
    family_of_type,
)
from pytest_hfaccel.classify.records import Analysis, HardwareProfile, analysis, nothing
from pytest_hfaccel.classify.term_evidence import words

CLASS_SOURCE = "class_analysis"
LISTED = 0.95
"""Confidence in a class that transformers lists. Not 1: `Qwen3ForCausalLM` also carries an embedding model."""
TRUNK = 0.8
"""The same for a language model or a bare text encoder, on which speech, time-series and reward models are built, too:
a name that says so outweighs it."""
READ = 0.85
"""Confidence in a class that only its name describes."""
READ_FAINTLY = 0.8
"""The same for one that ends in no head, or in a causal one: remote code names vision-language models so, too."""

_TEXT = frozenset({"embedding", "text_generation"})

# Heads that say what a class does, whatever its type. `FOR_IMAGE` and `FOR_BACKBONE` list base models of several
# modalities (video, detection), so they are not among them.
_DECISIVE = frozenset(
    f"FOR_{head}"
    for head in (
        "CTC",
        "RNNT",
        "TDT",
        "AUDIO_CLASSIFICATION",
        "AUDIO_FRAME_CLASSIFICATION",
        "AUDIO_XVECTOR",
        "VIDEO_CLASSIFICATION",
        "OBJECT_DETECTION",
        "ZERO_SHOT_OBJECT_DETECTION",
        "IMAGE_SEGMENTATION",
        "SEMANTIC_SEGMENTATION",
        "INSTANCE_SEGMENTATION",
        "UNIVERSAL_SEGMENTATION",
        "DEPTH_ESTIMATION",
        "IMAGE_CLASSIFICATION",
        "MASKED_IMAGE_MODELING",
        "DOCUMENT_QUESTION_ANSWERING",
        "RETRIEVAL",
        "KEYPOINT_DETECTION",
        "KEYPOINT_MATCHING",
        "POSE_ESTIMATION",
        "IMAGE_MATTING",
        "IMAGE_TO_IMAGE",
        "NORMAL_ESTIMATION",
        "POINTMAP_ESTIMATION",
    )
)

# Heads over text: what they are depends on the model under them (LayoutLM classifies documents, LLaMA texts).
_TEXT_HEADS: tuple[tuple[str, Kind], ...] = (
    ("FOR_SEQ_TO_SEQ_CAUSAL_LM", SEQ2SEQ),
    ("FOR_MASKED_LM", MASKED),
    ("FOR_CAUSAL_LM", CAUSAL),
)
_TEXT_CLASSIFIERS = frozenset(
    f"FOR_{head}"
    for head in (
        "SEQUENCE_CLASSIFICATION",
        "TOKEN_CLASSIFICATION",
        "QUESTION_ANSWERING",
        "TABLE_QUESTION_ANSWERING",
        "MULTIPLE_CHOICE",
        "NEXT_SENTENCE_PREDICTION",
    )
)

_SPEAKING = frozenset({"FOR_TEXT_TO_SPECTROGRAM", "FOR_TEXT_TO_WAVEFORM"})

# Suffix of a class that is not listed -> what it is when the words before it say no more.
_SUFFIXES: tuple[tuple[str, Kind], ...] = (
    (r"ForCTC|ForSpeechToText|ForRNNT|ForTDT", SPEECH),
    (r"For(Audio\w*Classification|XVector)", SOUND),
    (r"For(TextToSpeech|SpeechToSpeech|TextToWaveform|TextToSpectrogram)|HifiGan|Vocoder", TTS),
    (r"ForVideoClassification", VIDEO),
    (r"For\w*ObjectDetection", DETECTOR),
    (r"For\w*Segmentation", SEGMENTATION),
    (r"For\w*DepthEstimation", DEPTH),
    (r"For(Vision2Seq|VisionText2Text|ImageTextToText|ImagesAndTextClassification)", VLM),
    (r"For(ImageTextRetrieval|ImageAndTextRetrieval|ContrastiveLearning|Retrieval)", DUAL),
    (r"For(Masked|Causal)?Image(Classification|Modeling)?\w*|Backbone", IMAGE),
    (r"ForDocumentQuestionAnswering", DOCUMENT),
    (r"ForPrediction|ForRegression|ForTimeSeries\w+|ForForecasting", SERIES),
    (
        r"For(Token|Sequence)Classification|ForQuestionAnswering|ForMultipleChoice|ForNextSentencePrediction|"
        r"For\w*Reward\w*|RewardModel|ForScore|ForReranking",
        CLASSIFIER,
    ),
    (r"ForMaskedLM|ForPreTraining|ForMasking", MASKED),
    (r"ForCausalLM|LMHead\w*Model|ForGeneration|CausalLM|LMHeadModel|DoubleHeadsModel", CAUSAL),
    (r"ForConditionalGeneration|MTModel|EncoderDecoderModel", SEQ2SEQ),
    (r"TextModel(WithProjection)?|EncoderModel|ContextEncoder|QuestionEncoder", SENTENCE),
    (r"VisionModel(WithProjection)?|VisionTransformer|ImageModel", IMAGE),
)


def analyze_class(class_name: str) -> Analysis:
    """Say what an architecture class is for."""
    name = class_name.rpartition(".")[-1].strip()
    if not name:
        return nothing(CLASS_SOURCE, "no class was passed")
    listed = auto_tables().heads_of_class.get(name)
    kind = _listed_kind(name, listed) if listed else None
    if listed and kind:
        heads = ", ".join(head or "base model" for head in listed)
        confidence = TRUNK if kind in (CAUSAL, SEQ2SEQ) else LISTED
        return analysis(
            CLASS_SOURCE, *kind, confidence, _certainty(name, kind), f"transformers lists {name} under {heads}"
        )
    return _read(name)


def _certainty(name: str, kind: Kind) -> float:
    """How sure the subfamily is: a base model serves several, and no class tells chat models from other LMs."""
    if kind in (CAUSAL, SEQ2SEQ) or "For" not in name:
        return 0.75
    return LISTED


def _listed_kind(name: str, heads: Mapping[str, tuple[str, ...]]) -> Kind | None:
    by_head = next((kind for head, kind in KIND_OF_HEAD.items() if head in heads and head in _DECISIVE), None)
    homes = [home for types in heads.values() for model_type in types if (home := family_of_type(model_type))]
    if by_head and not (by_head[0] == "vision" and homes and homes[0][0] == "video"):
        return by_head
    home = next((home for home in homes if home[0] in _TEXT), homes[0] if homes else None)
    if home is None:
        return None
    if home[0] == "audio":
        return TTS if _SPEAKING & heads.keys() else home
    if home[0] not in _TEXT:
        return _by_part(name) or home
    if "FOR_TEXT_ENCODING" in heads and name.endswith("EncoderModel"):
        return SENTENCE
    by_text_head = next((kind for head, kind in _TEXT_HEADS if head in heads), None)
    if by_text_head:
        return by_text_head
    # The head decides, not the trunk: a BART that judges entailment or a LLaMA that scores answers generates nothing.
    return CLASSIFIER if _TEXT_CLASSIFIERS & heads.keys() else home


def _by_part(name: str) -> Kind | None:
    """A tower of a multimodal model is of the tower's own modality."""
    return IMAGE if re.search(r"Vision(Model|Transformer|Encoder)$", name) else None


@cache
def _patterns() -> Sequence[tuple[re.Pattern[str], Kind]]:
    return [(re.compile(f"({suffix})$"), kind) for suffix, kind in _SUFFIXES]


def _read(name: str) -> Analysis:
    """Read a class that transformers does not list."""
    match, kind = next(
        ((found, kind) for pattern, kind in _patterns() if (found := pattern.search(name))),
        (None, None),
    )
    stem = name[: match.start()] if match else re.sub(r"(Model|Pipeline)$", "", name)
    marker = find_marker(_class_words(stem))
    reason = f"{name} is not a class of this transformers"
    if kind and (marker is None or _stands(kind, marker.kind)):
        confidence = READ_FAINTLY if kind == CAUSAL else READ
        return analysis(
            CLASS_SOURCE, *kind, confidence, confidence, f"{reason}; its name ends in a head of this family"
        )
    if marker:
        return analysis(
            CLASS_SOURCE, *marker.kind, READ_FAINTLY, READ_FAINTLY - 0.1, f"{reason}; its name contains {marker.text!r}"
        )
    return nothing(CLASS_SOURCE, f"{reason}, and its name says nothing")


def _stands(head: Kind, stem: Kind) -> bool:
    """Whether the head decides: it is no head over text, or the model under it is one of text that it fits."""
    if head[0] not in _TEXT:
        return True
    return stem[0] in _TEXT


def _class_words(stem: str) -> list[str]:
    """`LlavaQwen2` -> `llava`, `qwen2`; runs of capitals stay together (`CLIPSeg` -> `clipseg` is tried joined)."""
    return words(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", stem))


CONFIG_SOURCE = "config_analysis"
IN_CONFIG = 0.97

_SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def analyze_config(model_name: str) -> Analysis | None:
    """Say what the checkpoint on disk is for; `None` when there is none."""
    folder = checkpoint_folder(model_name)
    if folder is None:
        return None
    if any((folder / name).is_file() for name in _SENTENCE_FILES):
        return analysis(
            CONFIG_SOURCE, *SENTENCE, IN_CONFIG, IN_CONFIG, "the checkpoint is one of sentence-transformers"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return nothing(CONFIG_SOURCE, f"its config.json cannot be read: {error}")
    return _said_by(config if isinstance(config, dict) else {})


def _said_by(config: dict[str, Any]) -> Analysis:
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        said = analyze_class(str(name))
        if said["family"]:
            certainty = said["subfamily_confidence"]
            reason = f"config.json names {name}"
            return analysis(CONFIG_SOURCE, said["family"], said["subfamily"], IN_CONFIG, certainty, reason)
    kind = family_of_type(str(config.get("model_type", "")))
    if kind:
        return analysis(CONFIG_SOURCE, *kind, IN_CONFIG, 0.7, f"config.json names the type {config['model_type']}")
    return nothing(CONFIG_SOURCE, "its config.json names no known architecture or model type")


def checkpoint_folder(model_name: str) -> Path | None:
    """Return the folder with the `config.json` of a local directory or of a cached hub id."""
    if not model_name or "\0" in model_name:
        return None
    local = Path(model_name)
    if _holds_config(local):
        return local
    return _cached(model_name) if _HUB_ID.fullmatch(model_name) else None


def _cached(hub_id: str) -> Path | None:
    repository = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / revision
    return folder if re.fullmatch(r"\w+", revision) and _holds_config(folder) else None


def _holds_config(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:
        # Too long for a file name, or a folder that may not be read.
        return False


def hub_cache() -> Path:
    """Return the hub's cache folder by the variables huggingface_hub reads, in its order."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface")
    return base / "hub"


REGISTERED = 0.95


def analyze_registered(model_name: str, source: str) -> Analysis | None:
    """Say what the registered class of a model is for; `None` when the model is not registered.

    The first call in a process reads the registry, which takes some 0.2 s; it is made only for names that hold no
    known model.

    Raises:
        RegistryError: The shipped registry is broken.
    """
    architecture = _architectures().get(model_name)
    said = analyze_class(architecture) if architecture else None
    if said is None:
        return None
    reason = f"it is registered as {architecture}"
    return analysis(source, said["family"], said["subfamily"], REGISTERED, said["subfamily_confidence"], reason)


@cache
def _architectures() -> Mapping[str, str]:
    from pytest_hfaccel.registry import load_registry

    return {spec.name: spec.architecture for spec in load_registry().specs}


HARDWARE_SOURCE = "hardware_analysis"

_BROWSER = ("webnn", "webgpu")
_OTHER_ACCELERATORS = ("mps", "rocm", "openvino")
_LARGE_MB = 8000
"""Above this peak, in MB, a model is nearly always a language model: 4 billion parameters in fp16."""
_SMALL_MB = 2000
_CONFIDENCE = 0.4
_FAINT = 0.3


def analyze_hardware(profile: HardwareProfile) -> Analysis:
    """Guess a family from where a model runs and how much memory it takes, with low confidence."""
    works = {kind: bool(entry.get("compatible")) for kind, entry in profile.items()}
    peak = _peak(profile)
    if not works:
        return nothing(HARDWARE_SOURCE, "the hardware profile is empty")
    if works.get("cuda") and _all_fail(works, _OTHER_ACCELERATORS):
        return analysis(
            HARDWARE_SOURCE, "multimodal", None, _CONFIDENCE, 0.0, "runs on CUDA and on no other accelerator"
        )
    if peak > _LARGE_MB:
        return analysis(HARDWARE_SOURCE, "text_generation", None, _CONFIDENCE, 0.0, f"takes {peak:.0f} MB")
    if _all_fail(works, _BROWSER) and any(works.values()):
        return analysis(HARDWARE_SOURCE, "audio", None, _FAINT, 0.0, "runs on accelerators, but not in a browser")
    if all(works.values()) and 0 < peak <= _SMALL_MB:
        return analysis(HARDWARE_SOURCE, "embedding", None, _FAINT, 0.0, f"runs everywhere in {peak:.0f} MB")
    return nothing(HARDWARE_SOURCE, "the hardware profile fits several families")


def _all_fail(works: dict[str, bool], kinds: tuple[str, ...]) -> bool:
    """Whether at least two of the kinds are stated, and none of those works."""
    stated = [works[kind] for kind in kinds if kind in works]
    return len(stated) >= 2 and not any(stated)


def _peak(profile: HardwareProfile) -> float:
    """The largest stated peak in MB, or 0."""
    usages = (entry.get("memory_usage") for entry in profile.values())
    return max((float(usage.get("peak") or 0) for usage in usages if isinstance(usage, dict)), default=0.0)
