"""A verdict about hardware that no hardware gave: files, packages and the hub fail on any device."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
from pytest_hfaccel.core.results import Cause, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.reporting import JOURNAL, Journal
from tests.unit.predict.predict_samples import REPORT, block_trace


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.setattr("pytest_hfaccel.predict.requirements.trace_of", block_trace)


def profile(reports: Path, *checks: CheckOutcome) -> dict[str, object]:
    """What the advisor says of BERT on the CPU after a run with these outcomes."""
    tried = CellResult(
        cell="bert-base-uncased-cpu-fp32",
        model="bert-base-uncased",
        architecture="BertForMaskedLM",
        module="bert",
        task="fill-mask",
        device="cpu",
        dtype="fp32",
        weights="pretrained",
        checks=list(checks),
    )
    header = {"started": "2026-02-01T00:00:00+00:00", "machine": {"cpu": {"name": "a CPU"}}}
    journal = Journal(reports / JOURNAL, header)
    journal.append(tried)
    journal.close()
    answer = HardwareAwareModelClassifier(reports=reports, machine=REPORT).classify_model("bert-base-uncased")
    return dict(answer["hardware_profile"]["cpu"])


@pytest.mark.parametrize("stage", [Stage.RESOLVE, Stage.LOAD])
@pytest.mark.parametrize("status", [Status.ERROR, Status.FAILED, Status.XFAILED])
def test_a_damaged_file_says_nothing_of_the_device(tmp_path: Path, status: Status, stage: Stage) -> None:
    found = profile(tmp_path, CheckOutcome("loads", status, stage, "model.safetensors is cut off"))
    assert (found["compatible"], found["basis"]) == (True, "declared")


def test_a_missing_package_says_nothing_of_the_device(tmp_path: Path) -> None:
    outcome = CheckOutcome("forward", Status.ERROR, Stage.RUN, "no module", cause=Cause.PACKAGE)
    assert profile(tmp_path, outcome)["basis"] == "declared"


def test_an_error_of_the_hub_says_nothing_of_the_device(tmp_path: Path) -> None:
    assert profile(tmp_path, CheckOutcome("loads", Status.HUB_ERROR, Stage.RESOLVE, "no answer"))["basis"] == "declared"


def test_what_failed_on_the_device_speaks_of_it(tmp_path: Path) -> None:
    found = profile(tmp_path, CheckOutcome("forward", Status.FAILED, Stage.RUN, "an operator is missing"))
    assert (found["compatible"], found["basis"], found["support"]) == (False, "measured", "failing")
