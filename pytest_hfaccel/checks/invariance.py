"""Checks `batch_invariance` and `padding_invariance`: neither other samples nor masked padding change the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed, passed_unless, skipped
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.positions import MASKS, name_in_batch, row_of_inputs, row_of_output
from pytest_hfaccel.numerics.tolerances import tolerance_between_runs, tolerance_of

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@built_in("batch_invariance")
def batch_invariance(context: CheckContext) -> CheckOutcome:
    """Each sample alone gives the outputs it gives in the batch, within the tolerance of the dtype."""
    if context.loaded.placement.details.get("dynamic_batch") is False:
        return skipped("the converted model takes this batch size only", batch=context.sample.batch)
    together = context.outputs
    measures: dict[str, Any] = {}
    for row in range(context.sample.batch):
        problem, numbers = _row_problem(context, together, row)
        measures[f"row_{row}"] = numbers
        if problem:
            return failed(f"row {row} alone differs from row {row} in the batch\n{problem}", **measures)
    return passed(**measures)


def _row_problem(context: CheckContext, together: Mapping[str, torch.Tensor], row: int) -> tuple[str, dict[str, Any]]:
    batch = context.sample.batch
    alone = context.loaded.forward(row_of_inputs(context.sample.forward, row, batch))
    if alone.keys() == together.keys() and all(alone[name].shape == leaf.shape for name, leaf in together.items()):
        return "alone it gives outputs of the whole batch's shape", {}
    places = {name: name_in_batch(name, alone, together, row, batch) for name in alone}
    try:
        shares = {
            name: row_of_output(together[place], alone[name], row, batch)
            for name, place in places.items()
            if place in together
        }
    except ValueError as error:
        return str(error), {}
    dtype = context.cell.dtype
    comparison = compare(alone, shares, tolerance_between_runs(context.cell), lambda: context.reference.error_of(dtype))
    return "" if comparison.ok else comparison.text(), {"rel_l2": comparison.measures().get("rel_l2")}


@built_in("padding_invariance", applies=lambda cell: task_of(cell.model).pads)
def padding_invariance(context: CheckContext) -> CheckOutcome:
    """Extra masked padding on the right of the text leaves the outputs at all real positions as they are."""
    plain, padded = context.sample.forward, context.sample.padded
    if padded is None:
        return skipped("the sample has no padded form: its text has no attention mask or a fixed length")
    without, with_padding = context.outputs, context.loaded.forward(padded)
    try:
        pairs = {
            name: _without_padding(leaf, with_padding[name], plain, padded)
            for name, leaf in without.items()
            if name in with_padding
        }
    except ValueError as error:
        return failed(str(error))
    expected = {name: leaf for name, (leaf, _) in pairs.items()}
    actual = {name: leaf for name, (_, leaf) in pairs.items()}
    dtype = context.cell.dtype
    comparison = compare(actual, expected, tolerance_of(context.cell), lambda: context.reference.error_of(dtype))
    measures: dict[str, Any] = {"rel_l2": comparison.measures().get("rel_l2"), "padding": _padding(plain, padded)}
    return passed_unless(comparison.text(), **measures)


def _padding(plain: Tensors, padded: Tensors) -> dict[str, int]:
    return {name: padded[name].shape[1] - plain[name].shape[1] for name in MASKS if name in plain and name in padded}


def _without_padding(
    leaf: torch.Tensor, padded_leaf: torch.Tensor, plain: Tensors, padded: Tensors
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both outputs at the positions of real tokens.

    Cuts the added positions off every axis that grew, and where that is the axis after the batch also drops the
    positions that the shorter sample's own mask excludes.
    """
    grown = [axis for axis, (a, b) in enumerate(zip(leaf.shape, padded_leaf.shape, strict=True)) if a != b]
    mask = None
    for axis in grown:
        lengths = leaf.shape[axis], padded_leaf.shape[axis]
        masks = [
            plain[name]
            for name in MASKS
            if name in plain and name in padded and (plain[name].shape[1], padded[name].shape[1]) == lengths
        ]
        if not masks:
            raise ValueError(f"padding changed an output from {tuple(leaf.shape)} to {tuple(padded_leaf.shape)}")
        padded_leaf = padded_leaf.narrow(axis, 0, lengths[0])
        mask = masks[0] if axis == 1 else mask
    if mask is not None and leaf.shape[:2] == mask.shape:
        return leaf[mask.bool()], padded_leaf[mask.bool()]
    return leaf, padded_leaf
