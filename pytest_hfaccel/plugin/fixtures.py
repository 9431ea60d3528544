"""The fixtures for tests of model classes, registered when the first model class is collected.

Their names begin with `hf_`, so that none shadows a fixture of the user's or of another plugin. The names they had
before work inside model classes, for one release, unless another fixture has that name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status, headline
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.engine.cell_run import PERFORMANCE
from pytest_hfaccel.engine.resume import POINT_MEASURED
from pytest_hfaccel.plugin.state import CELL_RUN, CELL_TEST, FACTS, OUTCOME, session_of

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel, SampleInputs
    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.engine.cell_run import CellRun
    from pytest_hfaccel.numerics.reference import Reference

_OLD_NAMES = {
    "cell": "hf_cell",
    "check": "hf_check",
    "hfaccel_cell_run": "hf_cell_run",
    "inputs": "hf_inputs",
    "loaded": "hf_model",
    "measuring_point": "hf_measuring_point",
    "pipe": "hf_pipeline",
    "reference": "hf_reference",
}


@pytest.fixture(scope="session")
def hf_cell(request: pytest.FixtureRequest) -> Cell:
    """The model x device x dtype x weights that the test runs on."""
    cell: Cell = request.param
    return cell


@pytest.fixture
def hf_measuring_point() -> Point:
    """The batch size and sequence length that performance is measured at: `--hf-performance-batch-sizes`, ..."""
    from pytest_hfaccel.benchmark.measurement import Point

    return Point(1)


@pytest.fixture(scope="class")
def hf_cell_run(request: pytest.FixtureRequest, hf_cell: Cell) -> Iterator[CellRun]:
    """The cell's run in one model class: its lease and outcomes. Ends when the next cell or class starts."""
    session = session_of(request.config)
    run = session.runner.open(hf_cell, session.module_of(request.cls), request.cls().task_sense)
    yield run
    run.close()


@pytest.fixture
def hf_check(request: pytest.FixtureRequest, hf_cell_run: CellRun) -> Callable[[str], CheckOutcome]:
    """Run a check of the battery by name on this cell; its verdict becomes the test's."""
    run, node, session = hf_cell_run, request.node, session_of(request.config)
    node.stash[CELL_RUN] = run

    def run_check(name: str) -> CheckOutcome:
        at = node.stash[CELL_TEST].point if name == PERFORMANCE else None
        point = str(at) if at else None
        outcome = session.resumed.outcome(run.key, name, session.decided_by(run.cell, request.cls), point)
        if outcome is not None:
            node.stash[FACTS] = session.resumed.facts(run.key)
        elif name == PERFORMANCE:
            from pytest_hfaccel.plugin.benchmarking import performance_request_of, tell_benchmark

            outcome = run.check(name, performance_request_of(node, run.default_performance))
            if point:
                outcome.measures[POINT_MEASURED] = point
            tell_benchmark(node, outcome)
        else:
            outcome = run.check(name)
        node.stash[OUTCOME] = outcome
        _raise(outcome, run.cell.device.id, required=_is_required(request, run.cell))
        return outcome

    return run_check


@pytest.fixture
def hf_model(request: pytest.FixtureRequest, hf_cell_run: CellRun) -> LoadedModel:
    """The model on the cell's device, leased from the pool."""
    return _or_raise(request, hf_cell_run, lambda: hf_cell_run.loaded)  # type: ignore[no-any-return]


@pytest.fixture
def hf_inputs(request: pytest.FixtureRequest, hf_cell_run: CellRun) -> SampleInputs:
    """The inputs of the model: `hf_inputs.forward` is a batch of two samples, on the CPU."""
    return _or_raise(request, hf_cell_run, lambda: hf_cell_run.sample)  # type: ignore[no-any-return]


@pytest.fixture
def hf_reference(request: pytest.FixtureRequest, hf_cell_run: CellRun) -> Reference:
    """The same weights on the CPU in fp64: `hf_reference.outputs` by leaf name."""
    return _or_raise(request, hf_cell_run, lambda: hf_cell_run.reference)  # type: ignore[no-any-return]


@pytest.fixture
def hf_pipeline(request: pytest.FixtureRequest, hf_cell_run: CellRun) -> Any:
    """The `transformers.pipeline` of the model's task on the cell's device."""
    return _or_raise(request, hf_cell_run, lambda: hf_cell_run.pipe)


def provide_fixtures(collector: pytest.Collector, model_class: type) -> None:
    """Make the fixtures known; by their former names in this class only, unless another fixture has that name."""
    plugins = collector.config.pluginmanager
    if not plugins.hasplugin("hfaccel-fixtures"):
        plugins.register(sys.modules[__name__], "hfaccel-fixtures")
    manager = collector.session._fixturemanager  # private: pytest offers no way to ask for a fixture
    for old, new in _OLD_NAMES.items():
        if not manager.getfixturedefs(old, collector) and not hasattr(model_class, old):
            setattr(model_class, old, _alias(old, new))


def _alias(old: str, new: str) -> Any:
    namespace: dict[str, Any] = {"warn": warn_of_old_name}
    source = f"def {old}(self, {new}):\n    warn({old!r}, {new!r})\n    return {new}\n"
    exec(source, namespace)  # noqa: S102 - pytest tells by a function's parameters what it depends on
    return pytest.fixture(namespace[old])


def warn_of_old_name(old: str, new: str) -> None:
    """Warn that a fixture was asked for by its former name."""
    warnings.warn(f"The fixture {old!r} is now called {new!r}.", DeprecationWarning, stacklevel=2)


def refuse_crashed(item: pytest.Item) -> None:
    """End a test without running it when it, or one before it on its cell, took down the run that is resumed.

    Raises:
        pytest.fail.Exception: It did.
        pytest.skip.Exception: One before it did.
    """
    session, test, model_class = session_of(item.config), item.stash[CELL_TEST], item.cls  # type: ignore[attr-defined]
    key = session.module_of(model_class), test.cell.id
    outcome = session.resumed.crash(key, test.check, session.decided_by(test.cell, model_class))
    if outcome is None:
        return
    item.stash[OUTCOME] = outcome
    if outcome.status == Status.CRASHED:
        pytest.fail(f"crashed: {outcome.reason}", pytrace=False)
    pytest.skip(outcome.reason or "")


def _or_raise(request: pytest.FixtureRequest, run: CellRun, make: Callable[[], Any]) -> Any:
    """Make what a test of the user's asks for; a failure gets its status here, too, and is reported once."""
    try:
        return make()
    except HfAccelError as error:
        check = request.node.stash[CELL_TEST].check
        outcome = CheckOutcome(check, Status(error.status), Stage(error.stage), str(error), cause=error.cause)
        request.node.stash[OUTCOME] = outcome
        request.node.stash[CELL_RUN] = run
        _raise(outcome, run.cell.device.id, required=_is_required(request, run.cell))


def _is_required(request: pytest.FixtureRequest, cell: Cell) -> bool:
    return any(cell.device.matches(pattern) for pattern in session_of(request.config).config.require)


def _raise(outcome: CheckOutcome, device: str, *, required: bool) -> None:
    text = headline(outcome, device)
    if outcome.status == Status.XFAILED:
        pytest.xfail(outcome.reason or "")
    if outcome.status == Status.UNAVAILABLE and required:
        pytest.fail(f"required device: {text}", pytrace=False)
    if outcome.status in (Status.SKIPPED, Status.UNAVAILABLE):
        pytest.skip(text if outcome.status == Status.UNAVAILABLE else outcome.reason or "")
    if outcome.status.is_bad:
        pytest.fail(text, pytrace=False)
