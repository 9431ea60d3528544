"""Check `determinism`: the same inputs give the same outputs again."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.tolerances import Tolerance, tolerance_of
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.spec import Device

NAME = "determinism"

# Parallel accelerators may sum with atomic additions, whose order changes from run to run and with it the rounding.
# Such noise is far below the error of the dtype itself; a tenth of the tolerance tells it from a race.
_SHARE_OF_TOLERANCE = 0.1


def determinism(context: CheckContext) -> CheckOutcome:
    """Two runs on the same inputs give the same outputs: bit by bit on processors, up to rounding on accelerators."""
    first, second = context.outputs, context.loaded.forward(context.sample.forward)
    exact = must_be_exact(context.cell.device)
    room = Tolerance(rel_l2=_SHARE_OF_TOLERANCE * tolerance_of(context.cell).rel_l2, second_chance=False)
    comparison = compare(second, first, room)
    largest = max((verdict.difference.max_abs for verdict in comparison.verdicts), default=0.0)
    measures: dict[str, Any] = {"max_abs": largest, "exact_required": exact}
    if exact and largest > 0.0:
        worst = max(comparison.verdicts, key=lambda verdict: verdict.difference.max_abs).difference
        return failed(NAME, f"{worst.leaf}: two runs differ by {worst.max_abs:.3g}", **measures)
    return passed(NAME, **measures) if comparison.ok else failed(NAME, comparison.text(), **measures)


def must_be_exact(device: Device) -> bool:
    """Whether a device sums in a fixed order, so that two runs must agree to the last bit."""
    return device.traits.is_exact(device.target)
