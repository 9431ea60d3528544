"""Check `padding_invariance`: masked padding changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.positions import MASKS
from pytest_hfaccel.checks.tolerances import tolerance_of
from pytest_hfaccel.core.results import CheckOutcome

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

NAME = "padding_invariance"


def padding_invariance(context: CheckContext) -> CheckOutcome:
    """Extra masked padding on the right of the text leaves the outputs at all real positions as they are."""
    plain, padded = context.sample.forward, context.sample.padded
    if padded is None:
        return skipped(NAME, "the sample has no padded form: its text has no attention mask or a fixed length")
    without, with_padding = context.outputs, context.loaded.forward(padded)
    try:
        both = {
            name: _real_positions(leaf, with_padding[name], plain, padded)
            for name, leaf in without.items()
            if name in with_padding
        }
    except ValueError as error:
        return failed(NAME, str(error))
    expected = {name: want for name, (want, _) in both.items()}
    found = {name: got for name, (_, got) in both.items()}
    dtype = context.cell.dtype
    comparison = compare(found, expected, tolerance_of(context.cell), lambda: context.reference.error_of(dtype))
    measures: dict[str, Any] = {"rel_l2": comparison.measures().get("rel_l2"), "padding": _padding(plain, padded)}
    return passed(NAME, **measures) if comparison.ok else failed(NAME, comparison.text(), **measures)


def _padding(plain: Tensors, padded: Tensors) -> dict[str, int]:
    return {name: padded[name].shape[1] - plain[name].shape[1] for name in MASKS if name in plain and name in padded}


def _real_positions(
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
        found = [
            plain[name]
            for name in MASKS
            if name in plain and name in padded and (plain[name].shape[1], padded[name].shape[1]) == lengths
        ]
        if not found:
            raise ValueError(f"padding changed an output from {tuple(leaf.shape)} to {tuple(padded_leaf.shape)}")
        padded_leaf = padded_leaf.narrow(axis, 0, lengths[0])
        mask = found[0] if axis == 1 else mask
    if mask is not None and leaf.shape[:2] == mask.shape:
        return leaf[mask.bool()], padded_leaf[mask.bool()]
    return leaf, padded_leaf
