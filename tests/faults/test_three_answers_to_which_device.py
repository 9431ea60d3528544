"""One machine, one model, one question: detection, advisor, predictor and pool name the same device, or none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareDetector
from pytest_hfaccel.history import BenchmarkDatabase, RunRecord
from pytest_hfaccel.predict import HardwareModelPredictor
from tests.unit.predict.predict_samples import REPORT, block_trace, row

SMALL = "distilbert-base-uncased"
LARGE = "meta-llama/Llama-2-70b-hf"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HOME", "HFACCEL_CACHE", "HFACCEL_REPORTS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.setattr("pytest_hfaccel.predict.requirements.trace_of", block_trace)


def advisor() -> HardwareAwareModelClassifier:
    return HardwareAwareModelClassifier(machine=REPORT)


def answers(model: str) -> dict[str, str | None]:
    """Who says what: kinds of hardware, `None` where nothing can run the model."""
    predicted = HardwareModelPredictor(report=REPORT).predict_optimal_hardware(model)["primary_recommendation"]
    pool = advisor().get_optimal_resource_pool_config([model])
    return {
        "advisor": advisor().classify_model(model)["recommended_hardware"],
        "predictor": predicted and predicted.partition(":")[0],
        "pool": pool["hardware_recommendations"]["preferred_hardware"],
    }


def test_a_model_that_runs_everywhere() -> None:
    def confirm(devices: Iterable[Device]) -> list[Presence]:
        return [here for device in devices if (here := REPORT.find(device))]

    detector = HardwareDetector(probe=lambda: REPORT, confirm=confirm)
    assert set(answers(SMALL).values()) == {detector.get_best_available_hardware()}


def test_a_model_that_fits_nowhere() -> None:
    assert set(answers(LARGE).values()) == {None}
    found = advisor().classify_model(LARGE)
    assert found["torch_device"] is None
    assert found["explanation"].startswith("No hardware considered can run it.")
    assert found["resource_requirements"]["fits"] is False


def test_a_measured_row_changes_all_answers_and_the_matrix(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    assert set(answers("bert-base-uncased").values()) == {"openvino"}
    assert advisor().get_compatibility_matrix()["embedding"]["cpu"]["basis"] == "declared"
    record = RunRecord("x", "performance", "2026-01-01T00:00:00", "2026-01-01T00:01:00", True, measurements=[row(0.5)])
    BenchmarkDatabase(tmp_path / "hfaccel.duckdb").write_run(record)
    assert set(answers("bert-base-uncased").values()) == {"cpu"}
    assert advisor().get_compatibility_matrix()["embedding"]["cpu"]["basis"] == "measured"
