"""How far one output tensor is from its reference, measured in fp64."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.checks.tolerances import Tolerance

# Models fill forbidden positions with the least number of their dtype, or with -1e9 and its like. Such a value means
# "never" and has no digits to compare; it is -65504 where the model runs in fp16.
_REFERENCE_FILL = -1e8
_ACTUAL_FILL = -6e4


@dataclass(frozen=True)
class LeafDifference:
    """The distance of a tensor from its reference.

    Attributes:
        leaf: Dotted name of the output.
        rel_l2: `||actual - reference|| / ||reference||`; `||actual||` where the reference is all zeros.
        max_abs: Largest absolute difference.
        max_rel: Largest difference relative to `max(|reference|, 1e-6 * max |reference|)`.
        cosine: Cosine of the angle between both, 1 where both are zero.
        pearson: Pearson correlation; recorded only, because it is blind to scale and offset.
        outside: Share of the elements outside `rtol`/`atol`; `None` where the tolerance has none.
        top1: Share of positions with the same argmax over the last axis.
        problem: What cannot be measured: another shape, a NaN on any side, other positions of infinity, other integers.
    """

    leaf: str
    rel_l2: float = 0.0
    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float = 1.0
    pearson: float = 1.0
    outside: float | None = None
    top1: float = 1.0
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form without what says nothing."""
        skipped = {"leaf", *(name for name in ("outside", "problem") if getattr(self, name) is None)}
        return {name: value for name, value in asdict(self).items() if name not in skipped}


def difference(
    leaf: str, actual: torch.Tensor, reference: torch.Tensor, tolerance: Tolerance | None = None
) -> LeafDifference:
    """Measure how far `actual` is from `reference`.

    Args:
        leaf: Dotted name of the output.
        actual: What the device returned, on the CPU, any dtype.
        reference: The same output of the reference, of the same shape.
        tolerance: Its `rtol` and `atol` decide the share `outside`.
    """
    if actual.shape != reference.shape:
        return LeafDifference(leaf, problem=f"shape {tuple(actual.shape)}, reference {tuple(reference.shape)}")
    if not reference.is_floating_point():
        return _integers(leaf, actual, reference)
    got, want = actual.double(), reference.double()
    problem = _special_values(got, want)
    if problem:
        return LeafDifference(leaf, problem=problem)
    kept = want.isfinite() & (want > _REFERENCE_FILL)
    return _numbers(leaf, got, want, kept, tolerance)


def _integers(leaf: str, actual: torch.Tensor, reference: torch.Tensor) -> LeafDifference:
    wrong = int((actual != reference).sum())
    if wrong:
        return LeafDifference(leaf, problem=f"{wrong} of {reference.numel()} integers differ")
    return LeafDifference(leaf)


def _special_values(got: torch.Tensor, want: torch.Tensor) -> str | None:
    nan = int(got.isnan().sum()), int(want.isnan().sum())
    if any(nan):  # also where both have it: two models that are broken alike do not agree on anything
        return f"NaN at {nan[0]} positions, in the reference at {nan[1]}"
    fill = want <= _REFERENCE_FILL  # minus infinity included
    for name, here, there in (
        ("+inf", got.isposinf(), want.isposinf()),
        ("-inf or a fill value", got.isneginf() | ((got <= _ACTUAL_FILL) & fill), fill),
    ):
        wrong = int((here != there).sum())
        if wrong:
            return f"{name} at {int(here.sum())} positions, in the reference at {int(there.sum())} ({wrong} differ)"
    return None


def _numbers(
    leaf: str, got: torch.Tensor, want: torch.Tensor, kept: torch.Tensor, tolerance: Tolerance | None
) -> LeafDifference:
    a, r = got[kept], want[kept]
    if not r.numel():
        return LeafDifference(leaf)
    error = (a - r).abs()
    size = r.abs()
    largest = float(size.max())
    norm = float(r.norm())
    outside = None
    if tolerance is not None and tolerance.rtol is not None and tolerance.atol is not None:
        allowed = tolerance.atol * max(1.0, largest) + tolerance.rtol * size
        outside = float((error > allowed).double().mean())
    return LeafDifference(
        leaf,
        rel_l2=float(error.norm()) / (norm or 1.0),
        max_abs=float(error.max()),
        max_rel=float((error / size.clamp(min=1e-6 * largest)).max()) if largest else 0.0,
        cosine=_cosine(a, r),
        pearson=_cosine(a - a.mean(), r - r.mean()),
        outside=outside,
        top1=_top1(got, want),
    )


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    norms = float(a.norm()) * float(b.norm())
    if norms == 0.0:
        return 1.0 if float(a.norm()) == float(b.norm()) else 0.0
    return float(a.dot(b)) / norms


def _top1(got: torch.Tensor, want: torch.Tensor) -> float:
    if want.ndim == 0 or not want.numel():
        return 1.0
    return float((got.argmax(-1) == want.argmax(-1)).double().mean())
