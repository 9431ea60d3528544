"""The task of an architecture class, from its name and its config.

A class with a head says its task in its name; one without (`BertModel`) or with a general head
(`...ForConditionalGeneration`) needs a look at what its config takes in. What this cannot tell it does not guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

_TASK_OF_HEAD = {
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
    """Return the task of an architecture class, or `None` where name and config do not tell.

    Args:
        architecture: transformers class name.
        config: The content of the checkpoint's config.json; may be empty.
    """
    if architecture in _TASK_OF_CLASS:
        return _TASK_OF_CLASS[architecture]
    # The longest ending first: an EncoderModel is also a Model.
    for head in sorted(_TASK_OF_HEAD, key=len, reverse=True):
        if architecture.endswith(head):
            return _TASK_OF_HEAD[head]
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
