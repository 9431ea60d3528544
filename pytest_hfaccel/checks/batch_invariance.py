"""Check `batch_invariance`: a sample's outputs do not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.rows import name_in_batch, row_of_inputs, row_of_output
from pytest_hfaccel.checks.tolerances import tolerance_between_runs
from pytest_hfaccel.core.results import CheckOutcome

if TYPE_CHECKING:
    import torch

NAME = "batch_invariance"


def batch_invariance(context: CheckContext) -> CheckOutcome:
    """Each sample alone gives the outputs it gives in the batch, within the tolerance of the dtype."""
    if context.loaded.placement.details.get("dynamic_batch") is False:
        return skipped(NAME, "the converted model takes this batch size only", batch=context.sample.batch)
    together = context.outputs
    measures: dict[str, Any] = {}
    for row in range(context.sample.batch):
        problem, numbers = _row_problem(context, together, row)
        measures[f"row_{row}"] = numbers
        if problem:
            return failed(NAME, f"row {row} alone differs from row {row} in the batch\n{problem}", **measures)
    return passed(NAME, **measures)


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
