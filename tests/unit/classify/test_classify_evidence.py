"""What tasks, methods, hardware and checkpoints on disk say, and how evidence is combined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.classify import ModelFamilyClassifier, classify_model
from pytest_hfaccel.classify.calibration import choose_family
from pytest_hfaccel.classify.records import analysis


@pytest.fixture
def classifier() -> ModelFamilyClassifier:
    return ModelFamilyClassifier()


@pytest.mark.parametrize("spelling", ["fill-mask", "fill_mask", "Fill Mask"])
def test_tasks_are_normalised(classifier: ModelFamilyClassifier, spelling: str) -> None:
    said = classifier.analyze_tasks([spelling])
    assert (said["family"], said["subfamily"]) == ("embedding", "masked_lm")


def test_a_partial_task_counts_half(classifier: ModelFamilyClassifier) -> None:
    whole = classifier.analyze_tasks(["image-classification"])
    partial = classifier.analyze_tasks(["fine-image-classification"])
    assert partial["family"] == whole["family"] == "vision"
    assert partial["confidence"] < whole["confidence"]


def test_methods_are_evidence(classifier: ModelFamilyClassifier) -> None:
    said = classifier.analyze_methods(["forward", "transcribe"])
    assert (said["family"], said["subfamily"]) == ("audio", "speech_recognition")
    assert classifier.analyze_methods(["forward"])["family"] is None


def test_tasks_outweigh_the_name() -> None:
    assert classify_model("gpt2", tasks=["automatic-speech-recognition"])["family"] == "audio"


def test_a_hardware_profile_alone_is_a_guess() -> None:
    profile: dict[str, dict[str, Any]] = {
        "cuda": {"compatible": True, "memory_usage": {"peak": 16000}},
        "mps": {"compatible": False},
        "rocm": {"compatible": False},
        "openvino": {"compatible": False},
    }
    answer = classify_model("my-custom-model", hw_compatibility=profile)
    assert answer["family"] == "multimodal"
    assert answer["confidence"] <= 0.4


def test_hardware_does_not_overrule_a_name() -> None:
    profile: dict[str, dict[str, Any]] = {
        "cuda": {"compatible": True, "memory_usage": {"peak": 99000}},
        "cpu": {"compatible": True},
    }
    answer = classify_model("bert-base-uncased", hw_compatibility=profile)
    assert answer["family"] == "embedding"
    assert answer["analyses"][-1]["family"] == "text_generation"


@pytest.mark.parametrize("profile", [{"cuda": {}}, {"cuda": {"memory_usage": None}}, {"cuda": {"compatible": False}}])
def test_a_meagre_profile_says_nothing(classifier: ModelFamilyClassifier, profile: dict[str, object]) -> None:
    assert classifier.analyze_hardware_compatibility(profile)["family"] is None  # type: ignore[arg-type]


def test_weights_order_the_evidence() -> None:
    one = analysis("hardware_analysis", "audio", None, 0.9, 0.0, "")
    other = analysis("task_analysis", "vision", None, 0.9, 0.0, "")
    chosen = choose_family([one, other])
    assert chosen is not None
    assert chosen.name == "vision"


def test_agreement_raises_confidence() -> None:
    alone = classify_model("someone/my-asr-thing")["confidence"]
    assert classify_model("someone/my-asr-thing", model_class="Wav2Vec2ForCTC")["confidence"] > alone


def _checkpoint(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_config_of_a_local_directory_is_the_strongest_evidence(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "bert-like", architectures=["Wav2Vec2ForCTC"], model_type="wav2vec2")
    answer = classify_model(str(folder))
    assert (answer["family"], answer["subfamily"]) == ("audio", "speech_recognition")
    assert answer["analyses"][0]["source"] == "config_analysis"


def test_a_config_without_a_known_architecture_has_a_model_type(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "mine", architectures=["Mine"], model_type="vit")
    assert classify_model(str(folder))["family"] == "vision"


def test_a_sentence_transformers_checkpoint_is_one(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "mine", architectures=["BertModel"])
    (folder / "modules.json").write_text("[]")
    assert classify_model(str(folder))["subfamily"] == "sentence_transformer"


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"architectures": 3}', "\xff"])
def test_a_broken_config_is_a_reason_not_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    answer = classify_model(str(tmp_path))
    assert answer["analyses"][0]["source"] == "config_analysis"
    assert answer["analyses"][0]["family"] is None


def test_a_cached_hub_model_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--mine"
    _checkpoint(repository / "snapshots" / "abc123", architectures=["ViTForImageClassification"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    assert classify_model("org/mine")["family"] == "vision"
    (repository / "refs" / "main").write_text("../../../elsewhere")
    assert classify_model("org/mine")["family"] == "unknown"
