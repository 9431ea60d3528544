"""The one table of tolerances: how far the outputs of a cell may be from the reference.

The numbers are those of the design (section 5). Each row states, for the outputs of one leaf:

- `rtol`, `atol`: every element must satisfy `|actual - reference| <= atol * scale + rtol * |reference|`. `scale` is
  `max(1, max |reference|)`: an element near zero carries the rounding errors of the large ones it was summed from.
- `rel_l2`: `||actual - reference|| / ||reference||` over the leaf. It catches many small errors in one direction.
- `cosine`: the least allowed cosine between both; only for int8, whose elementwise errors say little.
- `top1`: the least share of positions with the same argmax of `logits`; only for int8 on pretrained weights.

A tolerance is right when the next lower precision fails it; the check `canary` tries that in every cell. fp32 presumes
TF32 off and OpenVINO's precision hint f32. Honest fp32 costs little: of the registered models on the CPU and on
OpenVINO none but SAM is beyond 3e-6, and trained ones are between 2e-7 and 2e-6. The same models run in fp16 are off by
3.6e-4 to 8.6e-4, in TF32 by 1e-3. A class that needs more than the row has an entry in `NEEDS_MORE`, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pytest_hfaccel.core.spec import Cell, Weights

SECOND_CHANCE_FACTOR = 3.0
"""A leaf outside the table still passes with an error at most this many times that of the same dtype on torch's CPU.

The rule is that of `torch._dynamo.utils.same`: some models amplify rounding, on every device alike.
"""

SECOND_CHANCE_CEILING = 20.0
"""The second chance ends at this multiple of the table's `rel_l2`: without an end, a precision that is broken on the
CPU as well would excuse any result, and on the CPU itself the rule would compare a result with itself. Of the key
classes SAM needs most: the IoU scores of a tiny one are 12 times the tolerance of fp16 off on the CPU. Only a leaf
that is within `rtol` and `atol` everywhere may go further: its values are so small that they are mostly rounding."""

SECOND_CHANCE_CEILING_FP32 = 5.0
"""In fp32 the second chance ends here, which is 1e-4 at most: what fp16 costs must not be excused, and is at least 3
times as much."""


@dataclass(frozen=True)
class Tolerance:
    """One row of the table; the module's docstring explains the numbers, `None` means "not judged"."""

    rel_l2: float
    rtol: float | None = None
    atol: float | None = None
    cosine: float | None = None
    top1: float | None = None
    second_chance: bool = True
    ceiling: float = SECOND_CHANCE_CEILING


_FP32_TINY = Tolerance(rel_l2=1e-5, rtol=1e-4, atol=1e-5, ceiling=SECOND_CHANCE_CEILING_FP32)
_FP32 = replace(_FP32_TINY, rel_l2=2e-5)
_FP16 = Tolerance(rel_l2=5e-3, rtol=5e-3, atol=5e-3)
_BF16 = Tolerance(rel_l2=2e-2, rtol=1.6e-2, atol=1e-2)
_INT8 = Tolerance(rel_l2=0.10, cosine=0.995, second_chance=False)
# Nine of ten: quantisation may flip near-ties, of which real text has few.
_INT8_TOP1 = 0.9
_BETWEEN_RUNS = 3.0


@dataclass(frozen=True)
class NeedsMore:
    """A class whose honest fp32 is further from the reference than the row allows.

    Attributes:
        architecture: Wildcard over transformers classes.
        device: Wildcard over device ids, or a kind.
        rel_l2: What replaces the row's.
        atol: Likewise, where it is larger than the row's.
        reason: What makes rounding grow in this class, and what was measured.
    """

    architecture: str
    device: str
    rel_l2: float
    atol: float
    reason: str


NEEDS_MORE: tuple[NeedsMore, ...] = (
    NeedsMore(
        "SamModel",
        "*",
        rel_l2=5e-5,
        atol=5e-5,
        reason="the mask decoder amplifies rounding: sam-vit-large, tiny, is off by 3.2e-5 on the CPU, by 3.4e-5 on "
        "OpenVINO; in fp16 by 0.26",
    ),
)
"""The first entry that covers a cell in fp32 counts. Their errors must stay below those of fp16, or the canary's
precision twin says that the cell is blind."""


def tolerance_of(cell: Cell) -> Tolerance:
    """Return the row of the table that applies to a cell.

    Raises:
        KeyError: The cell's dtype has no row.
    """
    kind = cell.weights.kind
    if cell.dtype == "int8":
        return replace(_INT8, top1=_INT8_TOP1) if kind == Weights.PRETRAINED else _INT8
    if cell.dtype != "fp32":
        return {"fp16": _FP16, "bf16": _BF16}[cell.dtype]
    row = _FP32_TINY if kind == Weights.TINY and not cell.device.traits.exported else _FP32
    for entry in NEEDS_MORE:
        if fnmatchcase(cell.model.architecture, entry.architecture) and (
            cell.device.matches(entry.device) or cell.device.eager.matches(entry.device)
        ):
            return replace(row, rel_l2=entry.rel_l2, atol=max(entry.atol, row.atol or 0.0))
    return row


def tolerance_between_runs(cell: Cell) -> Tolerance:
    """Return how far two runs of a cell may be apart: each of them may be off, and neither is exact.

    Three times the row of the table in rel-L2. Of 1,576 classes on the CPU four lay between once and twice the row; the
    next one, which does mix samples, at 12 times.
    """
    tolerance = tolerance_of(cell)
    return replace(tolerance, rel_l2=_BETWEEN_RUNS * tolerance.rel_l2)
