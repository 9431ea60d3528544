"""Check `forward`: the outputs have the names, shapes and kinds of numbers they must have, and are finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

NAME = "forward"


def forward(context: CheckContext) -> CheckOutcome:
    """The outputs have the reference's names, shapes and kinds of dtype, and are finite where the reference is."""
    outputs = context.outputs
    reference = context.reference.outputs
    problems = [f"missing output {name!r}" for name in reference if name not in outputs]
    problems += [f"unexpected output {name!r}" for name in outputs if name not in reference]
    problems += [
        f"{name}: {problem}"
        for name, leaf in outputs.items()
        if name in reference and (problem := _problem(leaf, reference[name]))
    ]
    measures = {name: f"{_kind(leaf)}{list(leaf.shape)}" for name, leaf in outputs.items()}
    if problems:
        return failed(NAME, "\n".join(problems), stage=Stage.RUN, outputs=measures)
    return passed(NAME, outputs=measures)


def _problem(leaf: torch.Tensor, reference: torch.Tensor) -> str | None:
    if leaf.shape != reference.shape:
        return f"shape {tuple(leaf.shape)}, the reference has {tuple(reference.shape)}"
    # The reference is in fp64, and a runtime may return fp32 whatever it computes in: compare the kind of number.
    kinds = (leaf.is_floating_point(), leaf.is_complex()), (reference.is_floating_point(), reference.is_complex())
    if kinds[0] != kinds[1]:
        return f"dtype {_kind(leaf)}, the reference has {_kind(reference)}"
    if not leaf.is_floating_point() and not leaf.is_complex():
        return None
    broken = int((~leaf.isfinite() & (reference.isfinite() & (reference.abs() < _FILL))).sum())
    return f"{broken} of {leaf.numel()} values are NaN or infinite" if broken else None


# A reference beyond this is a fill value for "never"; the device may turn it into an infinity.
_FILL = 1e8


def _kind(leaf: torch.Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")
