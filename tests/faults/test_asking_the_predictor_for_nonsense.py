"""Questions that cannot be answered as asked: an error that names what is allowed, no answer to another question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.pool import ResourcePool
from pytest_hfaccel.predict import HardwareModelPredictor
from tests.unit.predict.predict_samples import REPORT, block_trace

POSITIONS = {"BertForMaskedLM": 512, "CLIPModel": 77}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HFACCEL_CACHE", "HFACCEL_REPORTS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)

    def trace(architecture: str, dims: Any, *, length: int, **how: Any) -> Any:
        found = block_trace(architecture, dims, length=min(length, POSITIONS.get(architecture, length)), **how)
        return replace(found, length=min(length, POSITIONS.get(architecture, length)))

    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", trace)


@pytest.mark.parametrize("words", [(), ("--generate-matrix",)], ids=["one", "matrix"])
def test_more_tokens_than_a_model_takes_are_an_error_that_names_the_most(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "bert-base-uncased", "--hardware", "cpu", "--seq-length", "100000", *words]) != 0
    captured = capsys.readouterr()
    assert "bert-base-uncased takes 512 tokens at most, not 100000" in captured.err
    assert not captured.out
    assert main(["predict", "bert-base-uncased", "--hardware", "cpu", "--seq-length", "512"]) == 0


def test_the_default_length_is_what_a_model_of_fewer_tokens_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "openai/clip-vit-base-patch32", "--hardware", "cpu"]) == 0
    assert "Asked: inference, fp32, batch 1, 77 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "gpt2", "--hardware", "cuda", "--gpu-count", "4"], "--distributed"),
        (["predict", "gpt2", "--precision", "fp32", "int8"], "--generate-matrix"),
        (["bench", "--models-set", "small", "--specific-models", "distilgpt2", "gpt9"], "gpt9: not in the set 'small'"),
        (["predict", "x" * 300], "x" * 80),
        (["recommend", "~nosuchuser/x"], "~nosuchuser/x"),
    ],
)
def test_what_would_be_ignored_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) != 0
    captured = capsys.readouterr()
    assert message in captured.err + captured.out
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("hardware", [[None], [""], [3]])
def test_hardware_that_is_no_name(hardware: list[Any]) -> None:
    with pytest.raises(ConfigError, match="is not a kind of hardware"):
        HardwareModelPredictor(report=REPORT).predict_optimal_hardware("gpt2", available_hardware=hardware)


def test_one_name_of_hardware_means_itself() -> None:
    found = HardwareModelPredictor(report=REPORT).predict_optimal_hardware("gpt2", available_hardware="cuda")
    assert set(found["all_scores"]) == {"cuda"}
    assert "It is not in this machine." in found["explanation"]


@pytest.mark.parametrize("name", [None, 123, "  "])
def test_a_model_that_is_no_name(name: Any) -> None:
    with pytest.raises(ConfigError, match="is not the name of a model"):
        HardwareAwareModelClassifier().classify_model(name)


def test_preferences_that_are_no_dictionary() -> None:
    no_dictionary: Any = "cpu"
    with pytest.raises(ConfigError, match="hardware_preferences: 'cpu' is not a dictionary"):
        ResourcePool().get_model("embedding", "bert", constructor=dict, hardware_preferences=no_dictionary)


def test_results_that_are_nested_too_deeply_are_noted(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "deep.json").write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")
    predictor = HardwareModelPredictor(benchmark_dir=results, report=REPORT)
    assert predictor.predict_optimal_hardware("gpt2")["primary_recommendation"]
    assert any("deep.json" in note for note in predictor.notes)


def test_notes_are_those_of_the_answer_and_not_of_earlier_ones() -> None:
    predictor = HardwareModelPredictor(report=REPORT)
    assert predictor.predict_performance("gpt2", hardware="cpu")["notes"]
    assert predictor.predict_performance("gpt2", hardware="cuda")["notes"] == []


def test_a_device_without_a_number_is_not_called_unable() -> None:
    found = HardwareModelPredictor(report=REPORT).predict_optimal_hardware(
        "gpt2", precision="fp16", available_hardware=["cuda", "cpu"]
    )
    assert "the only one of those considered whose time is known" in found["explanation"]


def test_a_list_of_precisions_makes_a_matrix_of_them() -> None:
    matrix = HardwareModelPredictor(report=REPORT).create_hardware_prediction_matrix(
        ["gpt2"], [1], ["cuda"], precision=["fp32", "fp16", "int8"]
    )
    assert set(matrix["models"]["gpt2"]["predictions"]["cuda"]["1"]) == {"fp32", "fp16", "int8"}
