"""A calibration that others on the machine disturbed: it is taken again, and it and its predictions say so."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.predict import HardwareModelPredictor
from pytest_hfaccel.predict.calibration import calibrate, save_calibration, sizes
from tests.unit.predict.predict_samples import CHIP, REPORT, block_trace, even_calibration

BUSY = {"spread": 0.25, "drift": 0.02, "loop_spread": 0.05, "passes": 2}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HFACCEL_REPORTS", str(tmp_path / "reports"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_predictions_say_that_they_rest_on_a_disturbed_calibration(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)

    def predicted(noise: dict[str, float]) -> tuple[float, list[str]]:
        save_calibration(replace(even_calibration(threads=4), device_name=CHIP, noise=noise), cache)
        found = HardwareModelPredictor(report=REPORT).predict_performance("bert-base-uncased", hardware="cpu")
        return found["predictions"]["cpu"]["interval"]["latency"][0], found["notes"]

    quiet_low, quiet_notes = predicted({**BUSY, "spread": 0.03})
    busy_low, busy_notes = predicted(BUSY)
    assert not quiet_notes
    assert busy_notes[0].startswith("cpu at fp32 was calibrated on a busy machine (the same work varied by 25%)")
    assert busy_low == pytest.approx(quiet_low / 1.25)


def test_the_command_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken = replace(even_calibration(), noise=BUSY)
    monkeypatch.setattr("pytest_hfaccel.predict.calibration.calibrate", lambda *_, **__: taken)
    assert main(["calibrate", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "work varied by 25%, measured 2 time(s)" in captured.out
    assert "calibrated on a busy machine" in captured.err


@pytest.mark.slow
def test_everything_is_measured_again_when_others_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LINEAR": ((1, 64, 64), (32, 64, 64)),
        "BMM": ((8, 8, 16, 4),),
        "ATTENTION": ((8, 16, 4),),
        "CONV": ((1, 3, 16, 8, 3, 1, 1),),
        "DEPTHWISE": ((1, 8, 16, 8, 3, 8, 1),),
        "SOUND": ((8, 64, 8, 4, 2, 1),),
        "NUMBERS": (1, 1000),
        "NORMS": ((8, 64),),
    }.items():
        monkeypatch.setattr(sizes, name, value)
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        taken = calibrate("cpu", threads=1)
    finally:
        for each in others:
            each.kill()
            each.wait()
    assert taken.noise["passes"] == 2
    assert "calibrated on a busy machine" in taken.problem
