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

from pytest_hfaccel.classify.known_models import (
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
    find_marker,
    kinds_of_types,
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

# Heads that say what a class does, whatever its type. `IMAGE` and `BACKBONE` list base models of several
# modalities (video, detection), so they are not among them.
_DECISIVE_HEADS = """
CTC RNNT TDT AUDIO_CLASSIFICATION AUDIO_FRAME_CLASSIFICATION AUDIO_XVECTOR VIDEO_CLASSIFICATION OBJECT_DETECTION
ZERO_SHOT_OBJECT_DETECTION IMAGE_SEGMENTATION SEMANTIC_SEGMENTATION INSTANCE_SEGMENTATION UNIVERSAL_SEGMENTATION
DEPTH_ESTIMATION IMAGE_CLASSIFICATION MASKED_IMAGE_MODELING DOCUMENT_QUESTION_ANSWERING RETRIEVAL KEYPOINT_DETECTION
KEYPOINT_MATCHING POSE_ESTIMATION IMAGE_MATTING IMAGE_TO_IMAGE NORMAL_ESTIMATION POINTMAP_ESTIMATION
"""
_DECISIVE = frozenset(_DECISIVE_HEADS.split())

# Heads over text: what they are depends on the model under them (LayoutLM classifies documents, LLaMA texts).
_TEXT_HEADS = {"SEQ_TO_SEQ_CAUSAL_LM": SEQ2SEQ, "MASKED_LM": MASKED, "CAUSAL_LM": CAUSAL}
_TEXT_CLASSIFIERS = frozenset(
    {
        "SEQUENCE_CLASSIFICATION",
        "TOKEN_CLASSIFICATION",
        "QUESTION_ANSWERING",
        "TABLE_QUESTION_ANSWERING",
        "MULTIPLE_CHOICE",
        "NEXT_SENTENCE_PREDICTION",
    }
)
_SPEAKING = frozenset({"TEXT_TO_SPECTROGRAM", "TEXT_TO_WAVEFORM"})

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
    if not listed or not kind:
        return _read(name)
    generates = kind in (CAUSAL, SEQ2SEQ)
    # A base model serves several subfamilies, and no class tells chat models from other language models.
    certainty = 0.75 if generates or "For" not in name else LISTED
    reason = f"transformers lists {name} under {', '.join(f'FOR_{head}' if head else 'base model' for head in listed)}"
    return analysis(CLASS_SOURCE, *kind, TRUNK if generates else LISTED, certainty, reason)


def _listed_kind(name: str, heads: Mapping[str, Sequence[str]]) -> Kind | None:
    by_head = next((kind for head, kind in KIND_OF_HEAD.items() if head in heads and head in _DECISIVE), None)
    known = kinds_of_types()
    homes = [known[model_type] for types in heads.values() for model_type in types if model_type in known]
    if by_head and not (by_head[0] == "vision" and homes and homes[0][0] == "video"):
        return by_head
    home = next((home for home in homes if home[0] in _TEXT), homes[0] if homes else None)
    if home is None:
        return None
    if home[0] == "audio":
        return TTS if _SPEAKING & heads.keys() else home
    if home[0] not in _TEXT:
        # A tower of a multimodal model is of the tower's own modality.
        return IMAGE if re.search(r"Vision(Model|Transformer|Encoder)$", name) else home
    if "TEXT_ENCODING" in heads and name.endswith("EncoderModel"):
        return SENTENCE
    by_text_head = next((kind for head, kind in _TEXT_HEADS.items() if head in heads), None)
    if by_text_head:
        return by_text_head
    # The head decides, not the trunk: a BART that judges entailment or a LLaMA that scores answers generates nothing.
    return CLASSIFIER if _TEXT_CLASSIFIERS & heads.keys() else home


def _read(name: str) -> Analysis:
    """Read a class that transformers does not list."""
    matches = ((re.search(f"({suffix})$", name), kind) for suffix, kind in _SUFFIXES)
    match, head = next(((match, kind) for match, kind in matches if match), (None, None))
    stem = name[: match.start()] if match else re.sub(r"(Model|Pipeline)$", "", name)
    # `LlavaQwen2` -> `llava`, `qwen2`; runs of capitals stay together: `CLIPSeg` -> `clipseg`.
    marker = find_marker(words(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", stem)))
    reason = f"{name} is not a class of this transformers"
    # The head decides if it is no head over text, or the model under it is one of text.
    if head and (marker is None or head[0] not in _TEXT or marker.kind[0] in _TEXT):
        confidence = READ_FAINTLY if head == CAUSAL else READ
        reason = f"{reason}; its name ends in a head of this family"
        return analysis(CLASS_SOURCE, *head, confidence, confidence, reason)
    if marker:
        reason = f"{reason}; its name contains {marker.text!r}"
        return analysis(CLASS_SOURCE, *marker.kind, READ_FAINTLY, READ_FAINTLY - 0.1, reason)
    return nothing(CLASS_SOURCE, f"{reason}, and its name says nothing")


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
        reason = "the checkpoint is one of sentence-transformers"
        return analysis(CONFIG_SOURCE, *SENTENCE, IN_CONFIG, IN_CONFIG, reason)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return nothing(CONFIG_SOURCE, f"its config.json cannot be read: {error}")
    config = config if isinstance(config, dict) else {}
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        said = analyze_class(str(name))
        if said["family"]:
            reason = f"config.json names {name}"
            return {**said, "source": CONFIG_SOURCE, "confidence": IN_CONFIG, "reason": reason}
    kind = kinds_of_types().get(str(config.get("model_type", "")))
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
    if architecture is None:
        return None
    reason = f"it is registered as {architecture}"
    return {**analyze_class(architecture), "source": source, "confidence": REGISTERED, "reason": reason}


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
