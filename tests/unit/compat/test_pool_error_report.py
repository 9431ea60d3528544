"""The report of a model that could not be brought to a device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.compat.error_reports import ErrorReports, error_report, recommendations, save_error_report
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError, OutOfMemory

KEYS = [
    "timestamp",
    "model_name",
    "hardware_type",
    "error_message",
    "stack_trace",
    "recommendations",
    "model_family",
    "subfamily",
    "alternatives",
]


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_report_has_the_documented_keys() -> None:
    report = error_report(raised(OutOfMemory("cuda:0 is full")), "gpt2", "cuda:0", alternatives=["cpu"])
    assert list(report) == KEYS
    assert report["error_message"] == "OutOfMemory: cuda:0 is full"
    assert report["stack_trace"].startswith("Traceback")
    assert (report["model_family"], report["subfamily"]) == ("text_generation", "causal_lm")  # by its name
    assert report["alternatives"] == ["cpu"]


def test_secrets_are_cut_out() -> None:
    token = "hf_" + "a1B2c3D4" * 4
    report = error_report(raised(OSError(f"https://user:{token}@hub/x said no to {token}")), "gpt2", "cpu")
    assert token not in json.dumps(report)


@pytest.mark.parametrize(
    ("error", "first", "last"),
    [
        (OutOfMemory("full"), "Ask for half the bytes", "Run it elsewhere: hardware_preferences={'device': 'cpu'}."),
        (RuntimeError("CUDA out of memory"), "Ask for half the bytes", "Call the constructor by itself"),
        (BackendUnavailable("no", hint="Install it."), "Install it.", "Run it elsewhere"),
        (ImportError("No module named 'timm'", name="timm"), "Install what is missing: timm.", "Call the constructor"),
        (OSError("not a local folder"), "Check the model's name", "Call the constructor by itself"),
        (ValueError("bad"), "Run it elsewhere", "Call the constructor by itself"),
        (LoadError("bad", hint="Do this."), "Do this.", "Call the constructor by itself"),
    ],
)
def test_recommendations_fit_the_error(error: Exception, first: str, last: str) -> None:
    found = recommendations(error, ["cpu"])
    assert found[0].startswith(first)
    assert found[-1].startswith(last)


def test_the_file_is_named_after_model_device_and_time(tmp_path: Path) -> None:
    report = error_report(raised(ValueError("bad")), "../org/some model", "cuda:0")
    report["timestamp"] = "2026-01-02T03:04:05.678901+00:00"
    path = save_error_report(report, tmp_path / "hardware_reports")
    assert path.name == "hardware_error_org_some_model_cuda_0_20260102_030405678901.json"
    assert path.parent == tmp_path / "hardware_reports"
    assert json.loads(path.read_text()) == report
    assert list(path.parent.iterdir()) == [path]


def test_a_report_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = ValueError("bad")
    ErrorReports(tmp_path / "file").record(error, "gpt2", "cpu")
    assert len(error.__notes__) == 1
    assert error.__notes__[0].startswith("Hardware error report: could not be written:")


def test_an_error_has_one_report(tmp_path: Path) -> None:
    reports, error = ErrorReports(tmp_path), ValueError("bad")
    for _ in range(2):
        reports.record(error, "gpt2", "cpu")
    assert len(list(tmp_path.iterdir())) == len(error.__notes__) == 1
