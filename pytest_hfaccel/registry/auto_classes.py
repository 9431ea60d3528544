"""The model classes of the installed transformers and the task each is tested with, without importing transformers.

`transformers.models.auto.modeling_auto` holds literal tables `MODEL_FOR_<HEAD>_MAPPING_NAMES` of (model type, class
name) pairs. Importing the module costs about a second and pulls in torch where it is installed; parsing its source
takes some 40 ms, once per process. Each pair is a testable model that is listed nowhere, called `opt/OPTForCausalLM`:
`opt/*` means all classes of a model type, `*/*ForCTC` all of a head.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pytest_hfaccel.core.spec import ModelSpec

_SOURCE = "models/auto/modeling_auto.py"


class AutoEntry(NamedTuple):
    """One line of one auto mapping.

    Attributes:
        head: What the mapping is for: `CAUSAL_LM`, `CTC`, ...; empty for the base models of `AutoModel`.
        model_type: The `model_type` of the config, e.g. `opt`.
        architecture: transformers class name, e.g. `OPTForCausalLM`.
    """

    head: str
    model_type: str
    architecture: str


@cache
def auto_entries() -> tuple[AutoEntry, ...]:
    """Return what the installed transformers maps, in its order; nothing where it is not installed."""
    # `find_spec` of a top-level package finds it without running it.
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        return ()
    path = Path(package.submodule_search_locations[0], _SOURCE)
    return tuple(read_entries(path.read_text(encoding="utf-8"))) if path.is_file() else ()


def read_entries(source: str) -> Iterator[AutoEntry]:
    """Read the mappings out of the source of `modeling_auto.py`."""
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        table = re.fullmatch(r"MODEL_(?:FOR_)?(.*?)_?(?:MAPPING)?_NAMES", node.targets[0].id)
        if table is None or not isinstance(node.value, ast.Call) or not node.value.args:
            continue
        for element in getattr(node.value.args[0], "elts", ()):
            # One table splices another in (`*list(...)`); its entries are read where they are written.
            if isinstance(element, ast.Tuple):
                model_type, names = ast.literal_eval(element)
                yield from (
                    AutoEntry(table[1], model_type, name) for name in ([names] if isinstance(names, str) else names)
                )


SOURCE = "transformers' auto mappings"


@cache
def every_pair() -> tuple[ModelSpec, ...]:
    """Return a model for each pair, sorted by name.

    A class that several mappings name has the task of the first of them in `TASK_OF_HEAD`.
    """
    heads: dict[tuple[str, str], list[str]] = {}
    for head, model_type, architecture in auto_entries():
        heads.setdefault((model_type, architecture), []).append(head)
    specs = []
    for (model_type, architecture), named in sorted(heads.items()):
        head = min(named, key=lambda head: MAIN_HEADS.index(head) if head in TASK_OF_HEAD else len(MAIN_HEADS))
        task = PROCESSED.get((head, model_type)) or TASK_OF_HEAD.get(head, UNKNOWN_HEAD)
        # One class can serve several model types: the type says which config it gets.
        dims = {"model_type": model_type}
        specs.append(ModelSpec(f"{model_type}/{architecture}", architecture, task, dims=dims, source=SOURCE))
    return tuple(specs)


@cache
def main_pairs() -> tuple[ModelSpec, ...]:
    """Return the base class and the main head of each model type: what a sweep of all architectures runs."""
    by_type: dict[str, list[AutoEntry]] = {}
    for entry in auto_entries():
        by_type.setdefault(entry.model_type, []).append(entry)
    chosen: set[str] = set()
    for model_type, entries in by_type.items():
        base = next((entry.architecture for entry in entries if not entry.head), None)
        heads = [e for e in entries if e.head and e.head in TASK_OF_HEAD and e.architecture != base]
        main = min(heads, key=lambda entry: MAIN_HEADS.index(entry.head), default=None)
        chosen |= {f"{model_type}/{name}" for name in (base, main and main.architecture) if name}
    return tuple(spec for spec in every_pair() if spec.name in chosen)


@cache
def other_pairs() -> tuple[ModelSpec, ...]:
    """Return the pairs that are not among `main_pairs`: what else can be put on top of a base class."""
    main = {spec.name for spec in main_pairs()}
    return tuple(spec for spec in every_pair() if spec.name not in main)


def match_pairs(pattern: str) -> list[ModelSpec]:
    """Return the pairs whose name, or class, matches a wildcard; case does not count."""
    wanted = pattern.lower()
    return [
        spec
        for spec in every_pair()
        if fnmatchcase(spec.name.lower(), wanted) or fnmatchcase(spec.architecture.lower(), wanted)
    ]


TASK_OF_HEAD: dict[str, str] = {
    "MULTIMODAL_LM": "multimodal-generation",
    "IMAGE_TEXT_TO_TEXT": "multimodal-generation",
    "SPEECH_SEQ_2_SEQ": "speech-to-text",
    "SEQ_TO_SEQ_CAUSAL_LM": "text2text-generation",
    "MASKED_LM": "fill-mask",
    "CAUSAL_LM": "text-generation",
    "CTC": "automatic-speech-recognition",
    "RNNT": "speech-to-text",
    "TDT": "speech-to-text",
    "IMAGE_CLASSIFICATION": "image-classification",
    "OBJECT_DETECTION": "object-detection",
    "ZERO_SHOT_OBJECT_DETECTION": "zero-shot-object-detection",
    "ZERO_SHOT_IMAGE_CLASSIFICATION": "zero-shot-image-classification",
    "MASK_GENERATION": "promptable-segmentation",
    "SEMANTIC_SEGMENTATION": "image-segmentation",
    "UNIVERSAL_SEGMENTATION": "image-segmentation",
    "INSTANCE_SEGMENTATION": "image-segmentation",
    "IMAGE_SEGMENTATION": "image-segmentation",
    "VIDEO_CLASSIFICATION": "video-classification",
    "AUDIO_CLASSIFICATION": "audio-classification",
    "DEPTH_ESTIMATION": "depth-estimation",
    "NORMAL_ESTIMATION": "depth-estimation",
    "POINTMAP_ESTIMATION": "depth-estimation",
    "TEXT_TO_WAVEFORM": "text-to-audio",
    "TEXT_TO_SPECTROGRAM": "text-to-audio",
    "KEYPOINT_DETECTION": "keypoint-detection",
    "KEYPOINT_MATCHING": "keypoint-matching",
    "POSE_ESTIMATION": "keypoint-detection",
    "IMAGE_TO_IMAGE": "image-to-image",
    "IMAGE_MATTING": "image-to-image",
    "TIME_SERIES_PREDICTION": "time-series-forecasting",
    "TEXT_RECOGNITION": "text-recognition",
    "TABLE_RECOGNITION": "text-recognition",
    "PRETRAINING": "pretraining",
    "SEQUENCE_CLASSIFICATION": "text-classification",
    "QUESTION_ANSWERING": "question-answering",
    "TOKEN_CLASSIFICATION": "token-classification",
    "DECISION": "reinforcement-learning",
    "BACKBONE": "backbone",
    # Heads that are never a model type's main one in transformers 5.
    "RETRIEVAL": "retrieval",
    "VISUAL_QUESTION_ANSWERING": "visual-question-answering",
    "DOCUMENT_QUESTION_ANSWERING": "document-question-answering",
    "TABLE_QUESTION_ANSWERING": "table-question-answering",
    "MULTIPLE_CHOICE": "multiple-choice",
    "NEXT_SENTENCE_PREDICTION": "next-sentence-prediction",
    "MASKED_IMAGE_MODELING": "masked-image-modeling",
    "CAUSAL_IMAGE_MODELING": "pretraining",
    "AUDIO_FRAME_CLASSIFICATION": "audio-frame-classification",
    "AUDIO_XVECTOR": "audio-xvector",
    "AUDIO_TOKENIZATION": "audio-codec",
    "TIME_SERIES_CLASSIFICATION": "time-series-classification",
    "TIME_SERIES_REGRESSION": "time-series-classification",
    "TEXT_ENCODING": "base-model",
    "IMAGE": "base-model",
    "": "base-model",
}

UNKNOWN_HEAD = "pretraining"
"""The task of a head this table does not know: its inputs are made from the signature, as for any generic task."""

MAIN_HEADS = tuple(TASK_OF_HEAD)

PROCESSED: dict[tuple[str, str], str] = {
    ("IMAGE_TEXT_TO_TEXT", "llava"): "image-text-to-text",
    ("IMAGE_TEXT_TO_TEXT", "llava_next"): "image-text-to-text",
    ("SPEECH_SEQ_2_SEQ", "whisper"): "automatic-speech-recognition",
    ("MASK_GENERATION", "sam"): "mask-generation",
    ("", "xclip"): "zero-shot-video-classification",
    ("", "clap"): "zero-shot-audio-classification",
}
"""Pairs whose processor `checkpoints.processors` can make, so that they have the nicer task of their head."""


_TASK_OF_CLASS = {
    "AlignModel": "zero-shot-image-classification",
    "AltCLIPModel": "zero-shot-image-classification",
    "CLIPModel": "zero-shot-image-classification",
    "ChineseCLIPModel": "zero-shot-image-classification",
    "ClapModel": "zero-shot-audio-classification",
    "SamModel": "mask-generation",
    "SiglipModel": "zero-shot-image-classification",
    "XCLIPModel": "zero-shot-video-classification",
}

_TASK_OF_CLASS_ENDING = {
    "EncoderModel": "feature-extraction",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForCausalLM": "text-generation",
    "ForImageClassification": "image-classification",
    "ForImageClassificationWithTeacher": "image-classification",
    "ForMaskedLM": "fill-mask",
    "ForObjectDetection": "object-detection",
    "ForTokenClassification": "token-classification",
    "LMHeadModel": "text-generation",
}

_TASK_BY_INPUT = {
    "ForConditionalGeneration": {
        "text": "text2text-generation",
        "audio": "automatic-speech-recognition",
        "image-text": "image-text-to-text",
    },
    "ForSequenceClassification": {"text": "text-classification", "audio": "audio-classification"},
    "Model": {"text": "feature-extraction", "image": "image-feature-extraction"},
}

# Config fields that only models of that kind have.
_AUDIO_FIELDS = frozenset({"num_mel_bins", "input_feat_per_channel", "feat_extract_norm", "sampling_rate"})
_IMAGE_FIELDS = frozenset({"image_size", "num_channels", "patch_size"})
_OTHER_CONFIGS = frozenset({"audio_config", "audio_encoder", "encoder", "decoder", "thinker_config"})


def infer_task(architecture: str, config: Mapping[str, Any]) -> str | None:
    """Return the task of an architecture class, or `None` where name and config do not tell."""
    if architecture in _TASK_OF_CLASS:
        return _TASK_OF_CLASS[architecture]
    # The longest ending first: an EncoderModel is also a Model.
    for head in sorted(_TASK_OF_CLASS_ENDING, key=len, reverse=True):
        if architecture.endswith(head):
            return _TASK_OF_CLASS_ENDING[head]
    for head, tasks in _TASK_BY_INPUT.items():
        if architecture.endswith(head):
            needs_decoder_inputs = head == "Model" and config.get("is_encoder_decoder")
            return None if needs_decoder_inputs else tasks.get(_input_of(config))
    return None


def _input_of(config: Mapping[str, Any]) -> str:
    fields = set(config)
    if fields & _OTHER_CONFIGS:
        return "unknown"
    if "vision_config" in fields:
        return "image-text"
    if fields & _AUDIO_FIELDS:
        return "audio"
    takes_image, takes_text = bool(fields & _IMAGE_FIELDS), "vocab_size" in fields
    if takes_image == takes_text:
        return "unknown"
    return "image" if takes_image else "text"
