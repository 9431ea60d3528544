"""The task of a class, from its name and what its config takes in."""

from __future__ import annotations

import pytest

from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.registry import auto_classes, load_registry
from pytest_hfaccel.registry.auto_classes import infer_task

TEXT = {"vocab_size": 10, "hidden_size": 4}
IMAGE = {"image_size": 8, "patch_size": 2, "num_channels": 3}
SPEECH = {"vocab_size": 10, "num_mel_bins": 80, "is_encoder_decoder": True}


@pytest.mark.parametrize(
    ("architecture", "config", "task"),
    [
        ("RobertaForMaskedLM", {}, "fill-mask"),
        ("OpenAIGPTLMHeadModel", {}, "text-generation"),
        ("YolosForObjectDetection", {}, "object-detection"),
        ("HubertForCTC", {}, "automatic-speech-recognition"),
        ("SiglipModel", {}, "zero-shot-image-classification"),
        ("BertForSequenceClassification", TEXT, "text-classification"),
        ("HubertForSequenceClassification", {"vocab_size": 32, "feat_extract_norm": "group"}, "audio-classification"),
        ("BartForConditionalGeneration", TEXT, "text2text-generation"),
        ("Speech2TextForConditionalGeneration", SPEECH, "automatic-speech-recognition"),
        ("LlavaForConditionalGeneration", {"vision_config": {}, "text_config": {}}, "image-text-to-text"),
        ("BertModel", TEXT, "feature-extraction"),
        ("T5EncoderModel", {**TEXT, "is_encoder_decoder": True}, "feature-extraction"),
        ("Dinov2Model", IMAGE, "image-feature-extraction"),
        ("ResNetModel", {"num_channels": 3}, "image-feature-extraction"),
    ],
)
def test_what_name_and_config_tell(architecture: str, config: dict[str, object], task: str) -> None:
    assert infer_task(architecture, config) == task


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("BertForPreTraining", TEXT),
        ("BertModel", {}),
        ("T5Model", {**TEXT, "is_encoder_decoder": True}),
        ("Wav2Vec2Model", {"vocab_size": 32, "feat_extract_norm": "group"}),
        ("ViltModel", {**TEXT, **IMAGE}),
        ("VisionEncoderDecoderModel", {"encoder": {}, "decoder": {}}),
        ("Qwen2AudioForConditionalGeneration", {"audio_config": {}, "text_config": {}, "vocab_size": 1}),
        ("Blip2Model", {"vision_config": {}}),
    ],
)
def test_what_they_do_not_tell_is_not_guessed(architecture: str, config: dict[str, object]) -> None:
    assert infer_task(architecture, config) is None


def test_only_tasks_that_exist() -> None:
    named = {*auto_classes._TASK_OF_CLASS.values(), *auto_classes._TASK_OF_CLASS_ENDING.values()}
    named |= {task for tasks in auto_classes._TASK_BY_INPUT.values() for task in tasks.values()}
    assert named <= set(TASKS)


def test_it_agrees_with_the_shipped_registry_wherever_it_has_an_opinion() -> None:
    # The dims of what a package carries are those that differ from the default config: too few to tell audio from text.
    for spec in (spec for spec in load_registry().specs if not spec.package):
        assert infer_task(spec.architecture, spec.dims) in (spec.task, None)
