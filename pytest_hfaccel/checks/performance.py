"""Check `performance`: how fast the cell is, measured only where its results are right.

What is measured, and how, is `pytest_hfaccel.benchmark.measuring`; `hfaccel bench` measures the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.inputs import TEXT, make_inputs
from pytest_hfaccel.benchmark.measurement import summary_of
from pytest_hfaccel.benchmark.measuring import PerformanceRequest, measure
from pytest_hfaccel.checks.base import CheckContext, built_in, passed, skipped
from pytest_hfaccel.checks.outputs import compare_with_reference
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.inputs import MeasuredInputs
    from pytest_hfaccel.benchmark.measurement import Point


_RIGHT_STATUSES = frozenset({Status.PASSED, Status.XPASSED})


@built_in("performance", stage=Stage.RUN, option="performance")
def performance(context: CheckContext) -> CheckOutcome:
    """Latency, throughput, memory and, of generating models, time per token; only after parity."""
    request: PerformanceRequest = getattr(context, "performance_request", PerformanceRequest())
    if request.only_right and not _results_are_right(context):
        return skipped("parity of this cell did not pass: the speed of wrong results is not measured")
    points = [_inputs(context, point) for point in request.points]
    if not request.timed:
        for inputs in points:
            context.loaded.forward(inputs.forward)
        return passed(batch=points[0].batch, length=points[0].length, timed=False)
    # Where the checkpoint has been loaded by torch already; it is not loaded for this.
    parameters: int | None = getattr(context.source, "_parameters", None)
    options: dict[str, Any] = {"budget": request.budget, "timer": request.timer, "facts": request.facts}
    alone: Callable[[], AbstractContextManager[Any]] = getattr(
        context, "measuring", lambda: nullcontext(context.loaded)
    )
    with alone() as loaded:
        measurements = [measure(loaded, context.cell, inputs, parameters=parameters, **options) for inputs in points]
    return passed(**summary_of(measurements[0]), measurements=[one.to_json() for one in measurements])


def _inputs(context: CheckContext, point: Point) -> MeasuredInputs:
    """Make the inputs of a point, of the names the sample has: a converted graph then serves both."""
    sample = context.sample.forward
    length = point.length or next((tensor.shape[1] for name, tensor in sample.items() if name in TEXT), 0)
    return make_inputs(context.source, point.batch, length, like=sample)  # type: ignore[arg-type]  # the implementation


def _results_are_right(context: CheckContext) -> bool:
    outcome = context.outcome_of("parity")
    if outcome is None:
        return compare_with_reference(context, context.outputs).ok
    return outcome.status in _RIGHT_STATUSES
