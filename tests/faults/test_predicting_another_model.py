"""Numbers of one model under the name of another: a config.json is used, and what stands in is said first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.predict import HardwareModelPredictor
from tests.unit.predict.predict_samples import REPORT, block_trace

TRACED: list[tuple[str, int | None]] = []


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory without caches, reports and hub, in which traces are invented and noted."""
    for name in ("HF_HOME", "HFACCEL_CACHE", "HFACCEL_REPORTS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    TRACED.clear()

    def trace(architecture: str, dims: Any, **how: Any) -> Any:
        TRACED.append((architecture, dims.get("num_hidden_layers")))
        return block_trace(architecture, dims, **how)

    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", trace)
    return tmp_path


def checkpoint(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3, **config}), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("architecture", ["VideoMAEForVideoClassification", "DPTForDepthEstimation", "MyOwnThing"])
def test_a_config_is_used_whether_or_not_its_task_is_known(here: Path, architecture: str) -> None:
    directory = checkpoint(here / "mine", architectures=[architecture])
    found = HardwareModelPredictor(report=REPORT).predict_performance(directory, hardware="cpu")
    assert (found["dimensions"], found["model"]) == ("known", f"dimensions of {directory} (config.json)")
    assert set(TRACED) == {(architecture, 3)}


def test_a_config_without_a_class_means_the_base_model_of_its_type(here: Path) -> None:
    directory = checkpoint(here / "mine", model_type="bert")
    HardwareModelPredictor(report=REPORT).predict_performance(directory, hardware="cpu")
    assert set(TRACED) == {("BertModel", 3)}


@pytest.mark.parametrize(
    "command",
    [("predict", "--hardware", "cpu", "--model"), ("recommend",), ("pool-config",)],
    ids=lambda words: words[0],
)
def test_unknown_dimensions_are_said_in_the_first_line_and_fail(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "me/my-clap"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("NO NUMBERS for me/my-clap: dimensions not known: ")
    assert "ClapModel's default config would be used with --assume-default" in first


@pytest.mark.parametrize("words", [("predict", "./nowhere"), ("recommend", "./nowhere"), ("pool-config", "./nowhere")])
def test_a_directory_that_is_not_there_is_an_error(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) != 0
    captured = capsys.readouterr()
    assert "./nowhere: there is no such directory" in captured.err
    assert not captured.out


def test_what_stands_in_bears_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "me/my-clap", "--assume-default", "--hardware", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("NOT me/my-clap itself: ClapModel's default config, assumed because: ")


def test_the_advisor_knows_the_dimensions_that_the_predictor_knows(capsys: pytest.CaptureFixture[str]) -> None:
    main(["recommend", "facebook/opt-1.3b", "--json"])
    advised = json.loads(capsys.readouterr().out)
    main(["predict", "facebook/opt-1.3b", "--json"])
    predicted = json.loads(capsys.readouterr().out)
    assert advised["model"] == predicted["model"] == "dimensions of facebook/opt-1.3b"
    assert advised["recommended_hardware"] == predicted["primary_recommendation"].partition(":")[0]
