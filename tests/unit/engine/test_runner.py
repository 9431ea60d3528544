"""How a cell's checks are run and judged, with a battery and a backend made for the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.backends import Backends, Placement
from pytest_hfaccel.checks.base import CheckRegistry, failed, passed
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import Traits
from pytest_hfaccel.core.errors import BackendUnavailable, HfAccelError, LoadError, OutOfMemory
from pytest_hfaccel.core.results import Cause, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Cell, Device, Expectation, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.engine.cell_run import CellRun
from pytest_hfaccel.engine.plan import has_check
from pytest_hfaccel.engine.runner import Runner

PLACEMENT = Placement("test:0", ("test:0",), "fp32", "fp32")


class ListBackend:
    """Loads nothing, and raises what it is told to."""

    name = "list"
    traits = Traits(needs_checkpoint=False)

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.loads = 0

    def load(self, cell: Cell, source: Any) -> Any:
        del cell, source
        self.loads += 1
        if self.error:
            raise self.error
        return SimpleNamespace(placement=PLACEMENT, nbytes=1, timings={"load": 0.5}, close=lambda: None)


def battery() -> CheckRegistry:
    checks = CheckRegistry()

    @checks.check("first", stage=Stage.RUN)
    def first(context: Any) -> CheckOutcome:
        return passed(bytes=context.loaded.nbytes)

    @checks.check("second")
    def second(context: Any) -> CheckOutcome:
        return failed("too far", rel_l2=0.5) if context.loaded else passed()

    @checks.check("third")
    def third(_context: Any) -> CheckOutcome:
        raise ZeroDivisionError("oops")

    @checks.check("silent")
    def silent(_context: Any) -> Any:
        return None

    return checks


def run_of(tmp_path: Path, backend: ListBackend, *expect: Expectation) -> CellRun:
    backends = Backends()
    backends.register("test", backend)
    runner = Runner(RunConfig(cache=str(tmp_path)), checks=battery(), backends=backends)
    model = ModelSpec("a", "A", "fill-mask", expect=expect)
    return runner.open(Cell(model, Device("test", "0"), "fp32", WeightsChoice(Weights.TINY, "for a test")), "module")


def expectation(stage: Stage, check: str) -> Expectation:
    return Expectation("test*", "*", stage, check, "known", source="file.yaml:3")


def test_a_check_that_says_nothing_has_not_passed(tmp_path: Path) -> None:
    outcome = run_of(tmp_path, ListBackend()).check("silent")
    assert outcome.status == Status.ERROR
    assert "the check 'silent' returned None; return `passed(...)` or `failed(...)`" in (outcome.reason or "")


def test_outcomes_and_record(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend())
    statuses = [run.check(name).status for name in ("first", "second", "third")]
    assert statuses == [Status.PASSED, Status.FAILED, Status.ERROR]
    assert [outcome.name for outcome in run.outcomes.values()] == ["first", "second", "third"]
    assert "ZeroDivisionError: oops" in str(run.outcomes["third"].reason)
    run.close()
    result = run.result()
    assert result.placement["bytes"] == 1
    assert result.timings == {"load": 0.5}
    assert [check.name for check in result.checks] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("error", "status", "stage"),
    [
        (LoadError("cannot convert", stage="convert"), Status.ERROR, Stage.CONVERT),
        (OutOfMemory("full"), Status.OUT_OF_MEMORY, Stage.LOAD),
        (HfAccelError("no"), Status.ERROR, Stage.RESOLVE),
        (RuntimeError("boom"), Status.ERROR, Stage.RUN),
        (MemoryError(), Status.OUT_OF_MEMORY, Stage.LOAD),
    ],
)
def test_a_failed_load_is_told_once_and_tried_once(
    tmp_path: Path, error: Exception, status: Status, stage: Stage
) -> None:
    backend = ListBackend(error)
    run = run_of(tmp_path, backend)
    first, second = run.check("first"), run.check("second")
    assert (first.status, first.stage) == (status, stage)
    assert second.status == Status.SKIPPED
    assert "'first'" in str(second.reason)
    assert backend.loads <= 2  # out of memory is retried once, by the pool
    assert run.result().implementation == "unavailable"


def test_an_absent_device_is_unavailable_in_every_check(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(BackendUnavailable("no driver")))
    assert [run.check(name).status for name in ("first", "second")] == [Status.UNAVAILABLE] * 2


def test_a_check_for_want_of_a_package_is_unavailable(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(ImportError("post_process requires the cv2 library but it was not found")))
    outcome = run.check("first")
    assert outcome.status == Status.UNAVAILABLE
    assert outcome.reason == "A needs the package cv2, which is not installed.\nInstall it with: pip install cv2."


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (LoadError("a BertModel cannot be built", cause=Cause.TINY_CHECKPOINT), "factory"),
        (BackendUnavailable("no driver"), ""),
        (ModuleNotFoundError("No module named 'timm'", name="timm"), "package"),
        (RuntimeError("pip install is not a cause"), ""),
    ],
)
def test_a_failure_says_its_cause(tmp_path: Path, error: Exception, cause: str) -> None:
    run = run_of(tmp_path, ListBackend(error))
    assert run.check("first").cause == cause


def test_an_expected_failure(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(), expectation(Stage.COMPARE, "second"))
    assert run.check("first").status == Status.PASSED
    outcome = run.check("second")
    assert outcome.status == Status.XFAILED
    assert "known [file.yaml:3]" in str(outcome.reason)


def test_an_expected_failure_that_passes(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(), expectation(Stage.RUN, "first"))
    outcome = run.check("first")
    assert outcome.status == Status.XPASSED
    assert "delete the entry at file.yaml:3" in str(outcome.reason)


def test_an_expected_failure_at_another_stage(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(), expectation(Stage.RUN, "second"))
    outcome = run.check("second")
    assert outcome.status == Status.FAILED
    assert "expects a failure at stage run, not compare" in str(outcome.reason)


def test_an_expected_load_failure_covers_every_check(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(LoadError("no", stage="convert")), expectation(Stage.CONVERT, "*"))
    assert [run.check(name).status for name in ("first", "second")] == [Status.XFAILED] * 2


def test_an_expected_load_failure_that_loads_fails_the_first_check_only(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(), expectation(Stage.CONVERT, "*"))
    assert run.check("first").status == Status.XPASSED
    assert run.check("second").status == Status.FAILED


def test_an_expectation_may_keep_a_check_from_running(tmp_path: Path) -> None:
    backend = ListBackend()
    run = run_of(tmp_path, backend, replace(expectation(Stage.RUN, "*"), run=False, cause="runtime"))
    outcomes = [run.check(name) for name in ("first", "second")]
    assert [outcome.status for outcome in outcomes] == [Status.XFAILED] * 2
    assert outcomes[0].reason == "[NOTRUN] known [file.yaml:3]"
    assert outcomes[0].cause == "runtime"
    assert backend.loads == 0


def test_only_the_check_that_is_named_is_kept_from_running(tmp_path: Path) -> None:
    run = run_of(tmp_path, ListBackend(), replace(expectation(Stage.RUN, "second"), run=False))
    assert run.check("first").status == Status.PASSED
    assert run.check("second").status == Status.XFAILED


def test_absence_is_not_an_expected_failure(tmp_path: Path) -> None:
    """A device that is not here says nothing about the defect: the entry must not be confirmed by it."""
    run = run_of(tmp_path, ListBackend(BackendUnavailable("no driver")), expectation(Stage.RESOLVE, "*"))
    assert run.check("first").status == Status.UNAVAILABLE


def test_performance_runs_once_per_point_and_each_is_an_outcome(tmp_path: Path) -> None:
    checks = CheckRegistry()

    @checks.check("performance", stage=Stage.RUN)
    def performance(context: Any) -> CheckOutcome:
        (point,) = context.performance_request.points
        return failed("too large") if point.batch == 8 else passed(batch=point.batch)

    backends = Backends()
    backends.register("test", ListBackend())
    config = RunConfig(cache=str(tmp_path), performance=True, batch_sizes=(1, 8), seq_lengths=(16,))
    runner = Runner(config, checks=checks, backends=backends)
    cell = Cell(ModelSpec("a", "A", "fill-mask"), Device("test", "0"), "fp32", WeightsChoice(Weights.TINY, "test"))
    record = runner.run(cell)
    assert [(check.name, check.status) for check in record.checks] == [
        ("performance", Status.PASSED),
        ("performance", Status.FAILED),
    ]


def test_which_checks_a_cell_has(tmp_path: Path) -> None:
    """One rule for the runner and for what pytest collects."""
    from pytest_hfaccel.checks import built_in_checks
    from pytest_hfaccel.core.spec import CLASS_LEVEL

    quiet, loud = RunConfig(cache=str(tmp_path)), RunConfig(cache=str(tmp_path), performance=True)
    choice = WeightsChoice(Weights.TINY, "test")
    cell = Cell(ModelSpec("a", "BertForMaskedLM", "fill-mask"), Device("cpu"), "fp32", choice)
    whole = Cell(cell.model, CLASS_LEVEL, "fp32", choice)
    checks = {check.name: check for check in built_in_checks()}
    assert not has_check(cell, checks["performance"], quiet)
    assert has_check(cell, checks["performance"], loud)
    assert not has_check(whole, checks["performance"], loud)
    assert has_check(whole, checks["resolves"], quiet)
    assert not has_check(cell, checks["resolves"], quiet)
    assert not has_check(cell, checks["generation"], quiet)
