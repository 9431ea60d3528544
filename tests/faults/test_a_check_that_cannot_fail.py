"""A battery in which a check, or what it judges by, can no longer fail: `hfaccel selftest` says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_hfaccel.checks import built_in_checks
from pytest_hfaccel.checks.base import CheckContext, CheckRegistry, failed, passed
from pytest_hfaccel.cli import main
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.spec import CPU, Cell
from pytest_hfaccel.selftest import BLIND_SPOTS, DEFECTS, JUDGES, Bench, Found, KeptModels, Verdict, self_test
from pytest_hfaccel.selftest.defects import Defect, loaded_as, read_as
from tests.unit.pool.pool_samples import make_cell

pytestmark = pytest.mark.slow


def _with(name: str, outcome: CheckOutcome) -> CheckRegistry:
    """The battery, with one check that always says the same."""
    checks = CheckRegistry()
    for check in built_in_checks():
        checks.add(replace(check, function=lambda _: outcome) if check.name == name else check)
    return checks


def _problems(cache: Path, checks: CheckRegistry) -> list[Verdict]:
    return [verdict for verdict in self_test(RunConfig(cache=str(cache)), [CPU], checks) if verdict.is_bad]


def test_the_battery_catches_every_defect_on_the_cpu(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    code = main(["selftest", "--device", "cpu", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [verdict for verdict in found["verdicts"] if verdict["is_bad"]] == []
    assert (code, found["passed"]) == (0, True)
    assert {verdict["defect"] for verdict in found["verdicts"] if verdict["found"] == "caught"} == {
        *(defect.name for defect in DEFECTS),
        *(judge.name for judge in JUDGES),
    }
    assert found["blind_spots"] == list(BLIND_SPOTS)


def test_a_check_that_does_nothing_is_noticed(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    monkeypatch.setattr("pytest_hfaccel.selftest.built_in_checks", lambda: _with("parity", passed()))
    # One defect of each model, at least; the test above tries all.
    of_gpt2 = next(defect for defect in DEFECTS if defect.model.architecture.startswith("GPT2"))
    tried = [of_gpt2, *(defect for defect in DEFECTS if defect.name == "a row of a weight reversed")]
    monkeypatch.setattr("pytest_hfaccel.selftest.DEFECTS", tried)
    monkeypatch.setattr("pytest_hfaccel.selftest.JUDGES", ())
    assert main(["selftest", "--device", "cpu"]) == 1
    told = capsys.readouterr().out
    assert "a row of a weight reversed" in told.partition("Do not trust a green matrix")[2]
    assert "NOT CAUGHT    parity: passed" in told


def test_a_check_that_fails_on_a_right_model_has_caught_nothing(shared_cache: Path) -> None:
    problems = _problems(shared_cache / "hfaccel", _with("parity", failed("says no")))
    assert [(one.defect, one.found, one.by, one.detail) for one in problems] == [
        ("BertForMaskedLM as it is", Found.WRONG, ("parity",), "says no")
    ]


def _no_change(_model: Any) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("defect", "checks"),
    [
        # A weight that a refactoring renamed, say: nothing is wrong, and so nothing is caught.
        (Defect("none", "loading", ("parity",), read_as(_no_change)), built_in_checks()),
        # What fails without having met the defect has not caught it.
        (
            Defect("unmet", "backend", ("parity",), loaded_as(lambda loaded: loaded)),
            _with("parity", failed("says no")),
        ),
    ],
)
def test_a_defect_that_is_not_planted_is_not_caught(shared_cache: Path, defect: Defect, checks: CheckRegistry) -> None:
    verdict = Bench(RunConfig(cache=str(shared_cache / "hfaccel")), CPU, checks).wrong(defect)
    assert (verdict.found, verdict.is_bad) == (Found.NOT_PLANTED, True)


def test_a_failure_for_another_reason_has_caught_nothing(shared_cache: Path) -> None:
    def says_no(context: CheckContext) -> CheckOutcome:
        assert context.outputs
        return failed("says no")

    checks = CheckRegistry()
    checks.add(replace(built_in_checks()["parity"], function=says_no))
    defect = Defect("other", "backend", ("parity",), loaded_as(lambda loaded: loaded), because="NaN")
    verdict = Bench(RunConfig(cache=str(shared_cache / "hfaccel")), CPU, checks).wrong(defect)
    assert (verdict.found, verdict.detail) == (Found.MISSED, "for another reason than 'NaN': says no")


@pytest.mark.parametrize(("device", "loads"), [("webgpu", 2), ("cpu", 4)])
def test_a_converted_model_is_loaded_once_for_all_that_is_planted_around_it(device: str, loads: int) -> None:
    opened: list[SimpleNamespace] = []
    closed: list[SimpleNamespace] = []

    def load(_cell: Cell, source: Any) -> SimpleNamespace:
        opened.append(SimpleNamespace(of=source.fingerprint))
        opened[-1].close = lambda made=opened[-1]: closed.append(made)
        return opened[-1]

    backend, cell = cast("Any", SimpleNamespace(load=load)), make_cell("selftest-bert", device)
    with KeptModels() as kept:
        for fingerprint in ("right", "wrong", "right", "wrong"):
            loaded = kept.load(backend, cell, cast("Any", SimpleNamespace(fingerprint=fingerprint)))
            assert cast("Any", loaded).of == fingerprint
            loaded.close()
        assert len(opened) == loads
        assert len(closed) == (0 if loads == 2 else 4)
    assert len(closed) == loads


def test_every_check_of_the_battery_has_a_defect() -> None:
    tried = {name for defect in DEFECTS for name in defect.caught_by}
    untried = {check.name for check in built_in_checks() if not check.option} - tried
    assert untried == {"task_sense"}  # which needs trained weights; BLIND_SPOTS says so
    assert "task_sense" in " ".join(BLIND_SPOTS)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("device", ["fake:0", "nosuch"])
def test_a_device_that_computes_nothing_is_refused(
    device: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "--device", device, "-n", workers]) == 1
    assert device in capsys.readouterr().err


def test_no_workers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "-n", "0"]) == 1
    assert "--workers 0" in capsys.readouterr().err


@pytest.mark.nightly
def test_two_devices_at_a_time_find_what_one_after_the_other_does(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="openvino is an extra of this package")
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    found = []
    for workers in ("1", "2"):
        assert main(["selftest", "--device", "cpu,openvino:CPU", "-n", workers, "--json"]) == 0
        verdicts = json.loads(capsys.readouterr().out)["verdicts"]
        found.append(sorted((verdict["device"], verdict["defect"], verdict["found"]) for verdict in verdicts))
    assert found[0] == found[1]


def test_a_device_that_is_not_here_has_passed_nothing(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    assert main(["selftest", "--device", "openvino:NPU", "--json"]) == 1
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert {verdict["found"] for verdict in verdicts} == {"FAILED"}
