"""Checks `parity` and `determinism`: the outputs equal those of the reference, and those of another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed_unless
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.numerics.compare import Comparison, compare, largest_passing
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.tolerances import Tolerance, tolerance_of

if TYPE_CHECKING:
    import torch


@built_in("parity")
def parity(context: CheckContext) -> CheckOutcome:
    """The outputs equal those of the same weights on the CPU in fp64, within the tolerance of the dtype.

    Positions of padding are left out.
    """
    comparison = compare_with_reference(context, context.outputs)
    measures = {"reference": context.reference.dtype, **comparison.measures()}
    if context.reference.reason:
        measures["reference_reason"] = context.reference.reason
    return passed_unless(comparison.text(), **measures)


def compare_with_reference(context: CheckContext, outputs: Mapping[str, torch.Tensor]) -> Comparison:
    """Compare what a model gave for the sample with what the reference gives."""
    reference = context.reference
    return compare(
        real_positions(outputs, context.sample.forward),
        reference.real_outputs,
        tolerance_of(context.cell),
        lambda: reference.error_of(context.cell.dtype),
    )


def limits_of(context: CheckContext) -> dict[str, float]:
    """The rel-L2 by floating-point leaf beyond which nothing passes parity on this cell, second chance included."""
    tolerance = tolerance_of(context.cell)
    errors = context.reference.error_of(context.cell.dtype) if tolerance.second_chance else {}
    return {
        name: largest_passing(errors[name].rel_l2 if name in errors else 0.0, tolerance)
        for name, leaf in context.reference.outputs.items()
        if leaf.is_floating_point()
    }


# Parallel accelerators may sum with atomic additions, whose order changes from run to run and with it the rounding.
# Such noise is far below the error of the dtype itself; a tenth of the tolerance tells it from a race.
_SHARE_OF_TOLERANCE = 0.1


@built_in("determinism")
def determinism(context: CheckContext) -> CheckOutcome:
    """Two runs on the same inputs give the same outputs: bit by bit on processors, up to rounding on accelerators."""
    device = context.cell.device
    first, second = context.outputs, context.loaded.forward(context.sample.forward)
    exact = device.traits.is_exact(device.target)  # whether it sums in a fixed order
    noise = Tolerance(rel_l2=_SHARE_OF_TOLERANCE * tolerance_of(context.cell).rel_l2, second_chance=False)
    comparison = compare(second, first, noise)
    largest = max((verdict.difference.max_abs for verdict in comparison.verdicts), default=0.0)
    measures: dict[str, Any] = {"max_abs": largest, "exact_required": exact}
    if exact and largest > 0.0:
        worst = max(comparison.verdicts, key=lambda verdict: verdict.difference.max_abs).difference
        return failed(f"{worst.leaf}: two runs differ by {worst.max_abs:.3g}", **measures)
    return passed_unless(comparison.text(), **measures)
