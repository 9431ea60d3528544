"""Which device is recommended: present or asked for, usable, measured before preferred."""

from __future__ import annotations

from pytest_hfaccel.advisor.candidate import Candidate
from pytest_hfaccel.advisor.choice import choose
from pytest_hfaccel.advisor.support import Support

REAL = Support("real", "declared", "a test")
NOT = Support("unavailable", "declared", "a test")


def on(
    kind: str,
    *,
    present: bool = True,
    support: Support = REAL,
    fits: bool | None = True,
    peak: int = 100,
    ms: float | None = None,
) -> Candidate:
    return Candidate(kind, present, "no driver", support, None, peak, fits, ms)


def test_the_preferred_device_that_is_present_is_chosen() -> None:
    choice = choose([on("cuda", present=False), on("openvino"), on("cpu")])
    assert choice.chosen.kind == "openvino"
    assert "cuda" not in choice.explanation
    assert choice.source == "declared support, order of preference"


def test_a_device_that_is_too_small_is_passed_over() -> None:
    choice = choose([on("cuda", fits=False), on("cpu")])
    assert choice.chosen.kind == "cpu"
    assert "cuda: present, declared real, needs at least 100 MB, does not fit" in choice.explanation


def test_a_device_the_model_does_not_run_on_is_passed_over() -> None:
    assert choose([on("openvino", support=NOT), on("cpu")]).chosen.kind == "cpu"


def test_measured_times_decide_between_measured_devices() -> None:
    choice = choose([on("cuda", ms=20), on("openvino"), on("cpu", ms=5)])
    assert choice.chosen.kind == "cpu"
    assert "fastest of the measured devices" in choice.explanation
    assert "5 ms measured" in choice.explanation


def test_one_measured_time_does_not_move_a_device() -> None:
    assert choose([on("cuda"), on("cpu", ms=5)]).chosen.kind == "cuda"


def test_an_absent_device_is_considered_when_asked_for() -> None:
    candidates = [on("cuda", present=False, fits=None), on("cpu")]
    choice = choose(candidates, ["cuda"])
    assert choice.chosen.kind == "cuda"
    assert "not present (no driver)" in choice.explanation
    assert choose(candidates, ["cuda", "cpu"]).chosen.kind == "cpu"


def test_where_nothing_fits_the_device_that_lacks_least_is_named() -> None:
    choice = choose([on("openvino", fits=False, peak=900), on("cpu", fits=False, peak=500)])
    assert choice.chosen.kind == "cpu"
    assert choice.explanation.startswith("No device considered can run it")


def test_a_profile_has_the_form_of_an_override() -> None:
    profile = on("cuda", present=False).profile()
    assert profile["compatible"] is True
    assert profile["system_available"] is False
    assert profile["memory_usage"] == {"peak": 100}
    assert profile["basis"] == "declared"


def test_requirements_of_an_unknown_model_are_not_numbers() -> None:
    found = Candidate("cpu", True, "", REAL, None, None, None).requirements()
    assert found["min_memory_mb"] is None
    assert found["sources"]["min_memory_mb"].startswith("not known")
    given = Candidate("cuda", True, "", REAL, None, 2000, None).requirements()
    assert given["min_memory_mb"] == 2000
    assert given["sources"]["min_memory_mb"] == "given by the caller's hardware profile"
