"""Checks `sensitivity`, `batch_invariance` and `padding_invariance`: what the outputs depend on, and what not.

Other contents must give other outputs; other samples in the batch and masked padding must change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed, passed_unless, skipped
from pytest_hfaccel.checks.outputs import compare_on_cell, limits_of
from pytest_hfaccel.core.errors import error_line
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.numerics.compare import difference
from pytest_hfaccel.numerics.positions import MASKS, name_in_batch, real_positions, row_of_inputs, row_of_output
from pytest_hfaccel.numerics.tolerances import tolerance_between_runs

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


_NOT_CONTENT = ("mask", "position", "type", "size", "shape", "grid", "length", "longer", "label")
"""Parts of the names of inputs that say how to read the others. Padding has checks of its own; and of a sample without
padding, or whose images are all of one size, such an input may be changed without any consequence."""

_VISIBLE = 4.0
"""By how many times what passes parity an output must move in the reference before the device's must be seen to move:
at less than that, rounding may hide it."""
_SHARE = 0.5
"""How far it must move on the device then, as a share of the reference's movement."""

_UNMOVED = 1e-6
"""Up to this rel-L2 the reference has not moved: no cell in fp32 could tell that from rounding."""


@built_in("sensitivity")
def sensitivity(context: CheckContext) -> CheckOutcome:
    """Each input that has content (tokens, an image, a sound) changes the outputs when it alone is changed.

    The reference must move at all; and where it moves visibly at the cell's precision, the device's outputs must move,
    too, at least half as far.
    """
    inputs = context.sample.forward
    problems: list[str] = []
    measures: dict[str, Any] = {}
    changed: dict[str, Tensors] = {}
    exact: dict[str, dict[str, float]] = {}
    with context.reference.model() as loaded:
        placeholders = _placeholders(loaded.pipeline_model().config)
        for name in inputs:
            if any(part in name for part in _NOT_CONTENT):
                continue
            changed[name] = {**inputs, name: _other(inputs[name], context.sample.batch, placeholders)}
            try:
                exact[name] = _movement(context, loaded.forward(changed[name]), context.reference.outputs)
            except (RuntimeError, ValueError, IndexError) as error:  # no inputs that the class takes
                measures[name] = {"not_tried": error_line(error)}
    if not exact:
        return skipped("no input could be changed into another that the model takes", **measures)
    limits = limits_of(context)
    for name, there in exact.items():
        here = _movement(context, context.loaded.forward(changed[name]), context.outputs)
        furthest = max(there, key=lambda leaf: there[leaf] / limits.get(leaf, 1.0))
        seen = there[furthest] > _VISIBLE * limits.get(furthest, 0.0)
        measures[name] = {"output": furthest, "reference": there[furthest], "device": here.get(furthest), "seen": seen}
        if there[furthest] <= _UNMOVED:
            problems.append(f"the outputs do not depend on {name}: with another one the reference gives the same")
        elif seen and not here.get(furthest, 0.0) >= _SHARE * there[furthest]:
            problems.append(
                f"with other {name} {furthest} moves by rel-L2 {there[furthest]:.3g} in the reference, on "
                f"{context.cell.device} by {here.get(furthest, 0.0):.3g}: the device does not see this input"
            )
    return passed_unless("\n".join(problems), **measures)


def _movement(context: CheckContext, outputs: Tensors, before: Tensors) -> dict[str, float]:
    """Return by leaf how far outputs are from those for the sample: rel-L2, or the share of integers that differ.

    Outputs of another shape (of what was detected, say) have moved as far as can be.
    """
    now, then = (real_positions(leaves, context.sample.forward) for leaves in (outputs, before))
    return {name: _distance(name, now[name], leaf) for name, leaf in then.items() if name in now}


def _distance(name: str, now: torch.Tensor, then: torch.Tensor) -> float:
    if now.shape != then.shape:
        return 1.0
    if not then.is_floating_point():
        return float((now != then).double().mean()) if then.numel() else 0.0
    distance = difference(name, now, then)
    return 1.0 if distance.problem else distance.rel_l2


def _placeholders(config: Any) -> set[int]:
    """Return the token ids that stand for something else than text: images, sounds, the ends of a sentence, padding."""
    placeholders: set[int] = set()
    pending: list[Any] = [config.to_dict()]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif str(key).endswith(("token_id", "token_index")) and isinstance(value, int):
                placeholders.add(value)
    return placeholders


def _other(tensor: torch.Tensor, batch: int, placeholders: set[int]) -> torch.Tensor:
    """Return another input: the samples' own in another order where possible, so that all values are valid ones."""
    import torch

    if tensor.ndim and tensor.shape[0] % batch == 0:
        exchanged = torch.cat(tensor.chunk(batch)[::-1])
        if not torch.equal(exchanged, tensor):
            return exchanged
    if tensor.is_floating_point():
        return 0.5 * tensor.flip(-1) + 0.1
    free = torch.ones_like(tensor, dtype=torch.bool)
    for token in placeholders:
        free &= tensor != token
    if not bool(free.any()):
        free[...] = True
    turned = tensor.clone()
    turned[free] = tensor[free].roll(1)
    if torch.equal(turned, tensor):  # all the same
        turned[free] = torch.where(tensor[free] > 0, tensor[free] - 1, tensor[free] + 1)
    return turned


@built_in("batch_invariance")
def batch_invariance(context: CheckContext) -> CheckOutcome:
    """Each sample alone gives the outputs it gives in the batch, within the tolerance of the dtype."""
    if context.loaded.placement.details.get("dynamic_batch") is False:
        return skipped("the converted model takes this batch size only", batch=context.sample.batch)
    together = context.outputs
    measures: dict[str, Any] = {}
    for row in range(context.sample.batch):
        problem, measures[f"row_{row}"] = _row_problem(context, together, row)
        if problem:
            return failed(f"row {row} alone differs from row {row} in the batch\n{problem}", **measures)
    return passed(**measures)


def _row_problem(context: CheckContext, together: Tensors, row: int) -> tuple[str, dict[str, Any]]:
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
    comparison = compare_on_cell(context, alone, shares, tolerance_between_runs(context.cell))
    return "" if comparison.ok else comparison.text(), {"rel_l2": comparison.measures().get("rel_l2")}


@built_in("padding_invariance", applies=lambda cell: task_of(cell.model).pads)
def padding_invariance(context: CheckContext) -> CheckOutcome:
    """Extra masked padding on the right of the text leaves the outputs at all real positions as they are."""
    plain, padded = context.sample.forward, context.sample.padded
    if padded is None:
        return skipped("the sample has no padded form: its text has no attention mask or a fixed length")
    without, with_padding = context.outputs, context.loaded.forward(padded)
    masks = [(plain[name], padded[name].shape[1]) for name in MASKS if name in plain and name in padded]
    expected, actual = {}, {}
    for name, leaf in without.items():
        if name not in with_padding:
            continue
        pair = _without_padding(leaf, with_padding[name], masks)
        if pair is None:
            return failed(f"padding changed an output from {tuple(leaf.shape)} to {tuple(with_padding[name].shape)}")
        expected[name], actual[name] = pair
    comparison = compare_on_cell(context, actual, expected)
    padding = {name: padded[name].shape[1] - plain[name].shape[1] for name in MASKS if name in plain and name in padded}
    return passed_unless(comparison.text(), rel_l2=comparison.measures().get("rel_l2"), padding=padding)


def _without_padding(
    leaf: torch.Tensor, padded_leaf: torch.Tensor, masks: list[tuple[torch.Tensor, int]]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return both outputs at the positions of real tokens; `None` where an axis grew by something else than padding.

    Cuts the added positions off every axis that grew, and where that is the axis after the batch also drops the
    positions that the shorter sample's own mask excludes.

    Args:
        leaf: The output without the added padding.
        padded_leaf: The output with it.
        masks: The masks of the inputs without it, each with the length that it has with it.
    """
    mask = None
    for axis, (length, grown) in enumerate(zip(leaf.shape, padded_leaf.shape, strict=True)):
        if length == grown:
            continue
        fitting = [one for one, padded_length in masks if (one.shape[1], padded_length) == (length, grown)]
        if not fitting:
            return None
        padded_leaf = padded_leaf.narrow(axis, 0, length)
        mask = fitting[0] if axis == 1 else mask
    if mask is not None and leaf.shape[:2] == mask.shape:
        return leaf[mask.bool()], padded_leaf[mask.bool()]
    return leaf, padded_leaf
