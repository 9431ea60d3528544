"""pytest-benchmark, if it is installed: the timing of `test_performance` goes through its `benchmark` fixture.

So `--benchmark-json`, `-save`, `-compare`, `-histogram`, `-only`, `-skip` and `-disable` work as its users expect. The
runs are ours: its own modes fix their number in advance, ours end when the median is known well enough. Under
pytest-xdist it switches itself off, and cannot carry what a worker measures: then, as without it, the measurement is in
our reports and database only.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.engine.cell_run import PERFORMANCE
from pytest_hfaccel.plugin.state import CELL_TEST
from pytest_hfaccel.upstream.pytest_benchmark import clock_of, recorded_seconds, withdraw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_hfaccel.benchmark.measuring import PerformanceRequest, Timer
    from pytest_hfaccel.benchmark.timing import TimingBudget
    from pytest_hfaccel.core.results import CheckOutcome

_PLUGIN = _FIXTURE = "benchmark"
_MIN_ROUNDS, _MAX_TIME = 5, 1.0
"""pytest-benchmark's own defaults: any other value was set by the user, and is respected."""
_EXTRA_INFO = ("architecture", "task", "effective_dtype", "device_name", "implementation", "threads", "noise")


def give_benchmark(items: Sequence[pytest.Item]) -> None:
    """Add pytest-benchmark's fixture to the tests that measure, as if they had it among their arguments."""
    for item in items:
        test = item.stash.get(CELL_TEST, None)
        if test is None or test.check != PERFORMANCE or not item.config.pluginmanager.hasplugin(_PLUGIN):
            continue
        names: list[str] = item.fixturenames  # type: ignore[attr-defined]
        if _FIXTURE not in names:
            names.append(_FIXTURE)


def performance_request_of(item: pytest.Item, request: PerformanceRequest) -> PerformanceRequest:
    """Return what the check `performance` of an item is to do."""
    point, benchmark = item.stash[CELL_TEST].point, _benchmark(item)
    if point is not None:
        request = replace(request, points=(point,))
    if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        request = replace(request, facts={"processes": int(processes)})
    if benchmark is None:
        return request
    if benchmark.disabled:
        # Under pytest-xdist it disables itself; --benchmark-disable says: run the code once, time nothing.
        return replace(request, timed=not item.config.getoption("benchmark_disable"))
    cell = item.stash[CELL_TEST].cell
    # What `--benchmark-group-by=param:device` can name.
    benchmark.params = {"model": cell.model.name, "device": cell.device.id, "dtype": cell.dtype}
    benchmark.params |= {"weights": str(cell.weights.kind)}
    benchmark.params |= {} if point is None else {"batch": point.batch, "length": point.length}
    _name_weights(benchmark, item)
    return replace(request, budget=_budget(item.config, request.budget), timer=_timer(benchmark))


def tell_benchmark(item: pytest.Item, outcome: CheckOutcome) -> None:
    """Add the facts to pytest-benchmark's entry; withdraw it when nothing was measured."""
    benchmark = _benchmark(item)
    measured = outcome.measures.get("measurements")
    if benchmark is None:
        return
    if benchmark.disabled or not measured:
        withdraw(benchmark)
        return
    numbers = {name: value for name, value in outcome.measures.items() if name != "measurements"}
    benchmark.extra_info.update({**numbers, **{name: measured[0][name] for name in _EXTRA_INFO}})


def _benchmark(item: pytest.Item) -> Any:
    return getattr(item, "funcargs", {}).get(_FIXTURE)


def _name_weights(benchmark: Any, item: pytest.Item) -> None:
    """Add the weights to the name of a benchmark, unless they are pretrained.

    A comparison with a run on other weights then finds no match, rather than the speed of another model.
    """
    cell = item.stash[CELL_TEST].cell
    benchmark.group = benchmark.group or f"{cell.model.name} [{cell.weights.kind}]"
    if cell.weights.kind != Weights.PRETRAINED:
        said = f"{cell.model.slug}[{cell.weights.kind}]"
        for attribute in ("name", "fullname"):
            head, bracket, parameter = getattr(benchmark, attribute).partition("[")
            setattr(benchmark, attribute, head + bracket + parameter.replace(cell.model.slug, said, 1))


def _budget(config: pytest.Config, budget: TimingBudget) -> TimingBudget:
    rounds, seconds = int(config.getoption("benchmark_min_rounds")), float(config.getoption("benchmark_max_time"))
    if rounds != _MIN_ROUNDS:
        budget = replace(budget, least_runs=rounds, max_runs=max(rounds, budget.max_runs))
    return budget if seconds == _MAX_TIME else replace(budget, max_seconds=seconds)


def _timer(benchmark: Any) -> Timer:
    """Return a timer that makes its first run through the fixture and tells the fixture about the others."""
    clock = clock_of(benchmark)

    def timer(run: Callable[[], Any], budget: TimingBudget) -> list[float]:
        from pytest_hfaccel.benchmark.timing import timed_runs

        benchmark.pedantic(run, rounds=1, iterations=1)
        first = recorded_seconds(benchmark)
        others = timed_runs(run, budget, clock)
        for seconds in others:
            benchmark.stats.update(seconds)
        return [*first, *others]

    return timer
