"""Check `parity`: the outputs at all real positions equal those of the reference, within the tolerance of the dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.checks.compare import Comparison, compare, largest_passing
from pytest_hfaccel.checks.positions import real_positions
from pytest_hfaccel.checks.tolerances import tolerance_of
from pytest_hfaccel.core.results import CheckOutcome

if TYPE_CHECKING:
    import torch

NAME = "parity"


def parity(context: CheckContext) -> CheckOutcome:
    """The outputs equal those of the same weights on the CPU in fp64, within the tolerance of the dtype.

    Not at positions of padding.
    """
    comparison = compare_with_reference(context, context.outputs)
    measures = {"reference": context.reference.dtype, **comparison.measures()}
    if context.reference.reason:
        measures["reference_reason"] = context.reference.reason
    return passed(NAME, **measures) if comparison.ok else failed(NAME, comparison.text(), **measures)


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
