"""The fixtures for tests of model classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.plugin.benchmarking import PERFORMANCE, performance_request_of, tell_benchmark
from pytest_hfaccel.plugin.collection import item_check, point_of
from pytest_hfaccel.plugin.keys import CELL_RUN, FACTS, OUTCOME, SESSION
from pytest_hfaccel.plugin.model_class import ModelClassTests
from pytest_hfaccel.plugin.replaying import POINT_MEASURED

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_hfaccel.backends.base import LoadedModel, SampleInputs
    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.engine.runner import CellRun
    from pytest_hfaccel.numerics.reference import Reference
    from pytest_hfaccel.pool import ResourcePool


@pytest.fixture(scope="session")
def resource_pool(request: pytest.FixtureRequest) -> ResourcePool:
    """The pool of loaded models of this process."""
    return request.config.stash[SESSION].runner.pool


@pytest.fixture(scope="session")
def cell(request: pytest.FixtureRequest) -> Cell:
    """The model x device x dtype x weights that the test runs on."""
    found: Cell = request.param
    return found


@pytest.fixture
def measuring_point() -> Point:
    """The batch size and sequence length that performance is measured at: `--hf-batch-sizes`, `--hf-seq-lengths`."""
    from pytest_hfaccel.benchmark.measurement import Point

    return Point(1)


@pytest.fixture(scope="class")
def hfaccel_cell_run(request: pytest.FixtureRequest, cell: Cell) -> Iterator[CellRun]:
    """The cell's run in one model class: its lease and outcomes. Ends when the next cell or class starts."""
    session = request.config.stash[SESSION]
    run = session.runner.open(cell, session.module_of(request.cls))
    yield run
    run.close()


@pytest.fixture
def check(request: pytest.FixtureRequest, hfaccel_cell_run: CellRun) -> Callable[[str], CheckOutcome]:
    """Run a check of the battery by name on this cell; its verdict becomes the test's."""
    run, node = hfaccel_cell_run, request.node
    instance = request.instance
    if isinstance(instance, ModelClassTests):
        run.claim_source = instance.task_sense
    node.stash[CELL_RUN] = run

    session = request.config.stash[SESSION]
    recorded = session.recorded

    def run_check(name: str) -> CheckOutcome:
        point = str(point_of(node)) if name == PERFORMANCE and point_of(node) else None
        known = recorded.outcome(run.key, name, session.decided_by(run.cell, request.cls), point)
        if known is not None:
            node.stash[OUTCOME], node.stash[FACTS] = known, recorded.facts(run.key)
            _raise(known, required=_is_required(request, run.cell))
            return known
        if name == PERFORMANCE:
            run.performance_request = performance_request_of(node, run.performance_request)
        outcome = run.check(name)
        if point:
            outcome.measures[POINT_MEASURED] = point
        node.stash[OUTCOME] = outcome
        if name == PERFORMANCE:
            tell_benchmark(node, outcome)
        _raise(outcome, required=_is_required(request, run.cell))
        return outcome

    return run_check


@pytest.fixture
def loaded(request: pytest.FixtureRequest, hfaccel_cell_run: CellRun) -> LoadedModel:
    """The model on the cell's device, leased from the pool."""
    return _or_raise(request, hfaccel_cell_run, lambda: hfaccel_cell_run.loaded)  # type: ignore[no-any-return]


@pytest.fixture
def inputs(request: pytest.FixtureRequest, hfaccel_cell_run: CellRun) -> SampleInputs:
    """The inputs of the model: `inputs.forward` is a batch of two samples, on the CPU."""
    return _or_raise(request, hfaccel_cell_run, lambda: hfaccel_cell_run.sample)  # type: ignore[no-any-return]


@pytest.fixture
def reference(request: pytest.FixtureRequest, hfaccel_cell_run: CellRun) -> Reference:
    """The same weights on the CPU in fp64: `reference.outputs` by leaf name."""
    return _or_raise(request, hfaccel_cell_run, lambda: hfaccel_cell_run.reference)  # type: ignore[no-any-return]


@pytest.fixture
def pipe(request: pytest.FixtureRequest, hfaccel_cell_run: CellRun) -> Any:
    """The `transformers.pipeline` of the model's task on the cell's device."""
    return _or_raise(request, hfaccel_cell_run, lambda: hfaccel_cell_run.pipe)


def _or_raise(request: pytest.FixtureRequest, run: CellRun, make: Callable[[], Any]) -> Any:
    """Make what a test of the user's asks for; a failure gets its status here, too, and is told once."""
    try:
        return make()
    except HfAccelError as error:
        outcome = CheckOutcome(item_check(request.node), Status(error.status), Stage(error.stage), str(error))
        request.node.stash[OUTCOME] = outcome
        request.node.stash[CELL_RUN] = run
        _raise(outcome, required=_is_required(request, run.cell))


def _is_required(request: pytest.FixtureRequest, cell: Cell) -> bool:
    return any(cell.device.matches(pattern) for pattern in request.config.stash[SESSION].config.require)


def _raise(outcome: CheckOutcome, *, required: bool) -> None:
    text = f"{outcome.status} at stage {outcome.stage}: {outcome.reason}"
    if outcome.status == Status.XFAILED:
        pytest.xfail(outcome.reason or "")
    if outcome.status == Status.UNAVAILABLE and required:
        pytest.fail(f"required device: {text}", pytrace=False)
    if outcome.status in (Status.SKIPPED, Status.UNAVAILABLE):
        pytest.skip(text if outcome.status == Status.UNAVAILABLE else outcome.reason or "")
    if outcome.status.is_bad:
        pytest.fail(text, pytrace=False)
