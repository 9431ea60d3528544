"""Tasks, methods and the types of what a caller hands in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.classify import classify_model
from pytest_hfaccel.core.errors import ConfigError


@pytest.mark.parametrize(
    ("task", "family", "subfamily"),
    [
        ("speech-to-text", "audio", "speech_recognition"),
        ("text-to-speech", "audio", "text_to_speech"),
        ("language-modeling", "text_generation", "causal_lm"),
        ("masked-lm", "embedding", "masked_lm"),
        ("visual-qa", "multimodal", "vision_language"),
        ("ASR", "audio", "speech_recognition"),
    ],
)
def test_a_task_is_known_by_other_names(task: str, family: str, subfamily: str) -> None:
    answer = classify_model("my-model", tasks=[task])
    assert (answer["family"], answer["subfamily"]) == (family, subfamily)


def test_a_task_outweighs_the_name() -> None:
    answer = classify_model("my-bert", tasks=["image-classification"])
    assert (answer["family"], answer["subfamily"]) == ("vision", "image_classifier")


@pytest.mark.parametrize("trunk", ["Bart", "MBart", "T5", "GPT2", "Llama", "Qwen2", "Mistral"])
def test_a_classification_head_on_a_generator_classifies(trunk: str) -> None:
    answer = classify_model("", model_class=f"{trunk}ForSequenceClassification")
    assert (answer["family"], answer["subfamily"]) == ("embedding", "token_classifier")


def test_a_name_that_states_speech_outweighs_the_language_model_it_is_built_on() -> None:
    assert classify_model("acme/nova-tts", model_class="LlamaForCausalLM")["family"] == "audio"
    assert classify_model("acme/nova", model_class="LlamaForCausalLM")["family"] == "text_generation"


def test_one_name_is_not_taken_letter_by_letter() -> None:
    for single, several in (("fill-mask", ["fill-mask"]), ("generate", ["generate"])):
        assert classify_model("x", tasks=single) == classify_model("x", tasks=several)
        assert classify_model("x", methods=single) == classify_model("x", methods=several)


def test_a_class_and_a_path_are_taken_for_their_names(tmp_path: Path) -> None:
    class GPT2LMHeadModel: ...

    assert classify_model("x", model_class=GPT2LMHeadModel)["subfamily"] == "causal_lm"
    assert classify_model(tmp_path / "gpt2")["family"] == "text_generation"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model_name": None}, "model_name must be"),
        ({"model_name": 123}, "model_name must be"),
        ({"model_name": "x", "model_class": 3}, "model_class must be"),
        ({"model_name": "x", "tasks": [None]}, "tasks must be"),
        ({"model_name": "x", "tasks": 7}, "tasks must be"),
        ({"model_name": "x", "hw_compatibility": "cuda"}, "hw_compatibility must be"),
    ],
)
def test_what_says_nothing_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        classify_model(**arguments)


def test_a_name_too_long_for_a_file_is_classified() -> None:
    assert classify_model("bert-" + "a" * 300)["family"] == "embedding"
