"""Outputs against reference outputs, leaf by leaf, measured in fp64, with one readable text about the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.stages import at_stage
from pytest_hfaccel.numerics.tolerances import SECOND_CHANCE_FACTOR, Tolerance

if TYPE_CHECKING:
    import torch

    Outputs = Mapping[str, torch.Tensor]


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
        return {name: value for name, value in asdict(self).items() if name != "leaf" and value is not None}


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
        wrong = int((actual != reference).sum())
        return LeafDifference(leaf, problem=f"{wrong} of {reference.numel()} integers differ" if wrong else None)
    actual, reference = actual.double(), reference.double()
    problem = _special_values(actual, reference)
    return LeafDifference(leaf, problem=problem) if problem else _numbers(leaf, actual, reference, tolerance)


def _special_values(actual: torch.Tensor, reference: torch.Tensor) -> str | None:
    nan = int(actual.isnan().sum()), int(reference.isnan().sum())
    if any(nan):  # also where both have it: two models that are broken alike do not agree on anything
        return f"NaN at {nan[0]} positions, in the reference at {nan[1]}"
    fill = reference <= _REFERENCE_FILL  # minus infinity included
    for name, here, there in (
        ("+inf", actual.isposinf(), reference.isposinf()),
        ("-inf or a fill value", actual.isneginf() | ((actual <= _ACTUAL_FILL) & fill), fill),
    ):
        wrong = int((here != there).sum())
        if wrong:
            return f"{name} at {int(here.sum())} positions, in the reference at {int(there.sum())} ({wrong} differ)"
    return None


def _numbers(leaf: str, actual: torch.Tensor, reference: torch.Tensor, tolerance: Tolerance | None) -> LeafDifference:
    numbers = reference.isfinite() & (reference > _REFERENCE_FILL)
    a, r = actual[numbers], reference[numbers]
    if not r.numel():
        return LeafDifference(leaf)
    error, size = (a - r).abs(), r.abs()
    largest = float(size.max())
    outside = None
    if tolerance is not None and tolerance.rtol is not None and tolerance.atol is not None:
        allowed = tolerance.atol * max(1.0, largest) + tolerance.rtol * size
        outside = float((error > allowed).double().mean())
    same_argmax = actual.argmax(-1) == reference.argmax(-1) if reference.ndim else None
    return LeafDifference(
        leaf,
        rel_l2=float(error.norm()) / (float(r.norm()) or 1.0),
        max_abs=float(error.max()),
        max_rel=float((error / size.clamp(min=1e-6 * largest)).max()) if largest else 0.0,
        cosine=_cosine(a, r),
        pearson=_cosine(a - a.mean(), r - r.mean()),
        outside=outside,
        top1=1.0 if same_argmax is None else float(same_argmax.double().mean()),
    )


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    norms = float(a.norm()), float(b.norm())
    if 0.0 in norms:
        return 1.0 if norms[0] == norms[1] else 0.0
    return float(a.dot(b)) / (norms[0] * norms[1])


Costs = Mapping[str, float]
"""What a dtype must cost, as rel-L2 by leaf."""
Rounding = Callable[[], Mapping[str, LeafDifference]]
"""Measures the error of the same dtype on torch's CPU by leaf; the result is empty where that is not possible."""


@dataclass(frozen=True)
class LeafVerdict:
    """Whether one leaf is close enough.

    Attributes:
        difference: The numbers.
        excess: Worst number divided by its limit; at most 1 means close enough. Infinite where `difference.problem`.
        complaints: What is outside, each with number and limit; empty when close enough.
        second_chance: Whether only the rule "at most 3x the error of this dtype on the CPU" let it pass.
        limit: The largest rel-L2 that the tolerance lets pass, that rule included.
        unjudged: Why nothing can be said: honest rounding alone is beyond the limit. There are no complaints then.
    """

    difference: LeafDifference
    excess: float
    complaints: tuple[str, ...] = ()
    second_chance: bool = False
    limit: float = float("inf")
    unjudged: str = ""

    @property
    def ok(self) -> bool:
        """Whether the leaf is close enough; false also where that cannot be told."""
        return not (self.complaints or self.unjudged)


@dataclass(frozen=True)
class Comparison:
    """The verdicts on all leaves of an output.

    Attributes:
        verdicts: One per leaf that both sides have.
        missing: Leaves of the reference that are not in the output.
        unexpected: Leaves of the output that are not in the reference.
    """

    verdicts: tuple[LeafVerdict, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether both sides have the same leaves and all are close enough; false without any leaf."""
        return not self.is_refused and all(v.ok for v in self.verdicts)

    @property
    def is_refused(self) -> bool:
        """Whether anything is wrong: a leaf that is not close enough, other leaves, none at all.

        Leaves that cannot be judged are neither close enough nor wrong; see `unjudged`.
        """
        return not self.verdicts or bool(self.missing or self.unexpected) or any(v.complaints for v in self.verdicts)

    @property
    def unjudged(self) -> dict[str, str]:
        """The leaves that cannot be judged on this input, and why; only `within` finds any."""
        return {verdict.difference.leaf: verdict.unjudged for verdict in self.verdicts if verdict.unjudged}

    def text(self) -> str:
        """What is wrong: missing leaves, then the worst leaf with its numbers and limits, then the other bad ones."""
        lines = [f"missing output {name!r}" for name in self.missing]
        lines += [f"unexpected output {name!r}" for name in self.unexpected]
        bad = sorted((v for v in self.verdicts if v.complaints), key=lambda verdict: -verdict.excess)
        lines += [f"{verdict.difference.leaf}: {'; '.join(verdict.complaints)}" for verdict in bad]
        return "\n".join(lines) or ("" if self.verdicts else "there are no outputs to compare")

    def within(self, costs: Costs, factor: float, dtype: str, more_costs: Callable[[], Costs]) -> Comparison:
        """Judge again by what the dtype must cost; see `budgets.Budget`. It lets nothing pass that was refused.

        A leaf whose rel-L2 is more than `factor` times its cost is refused, even where the tolerance lets it pass. Of
        the others, one beyond the row of the table cannot be judged if honest rounding is beyond the limit, too.

        Args:
            costs: The largest rel-L2 of some passes with emulated rounding, by leaf.
            factor: How many times as large an error may be.
            dtype: What the passes were rounded to.
            more_costs: The same of many more passes, asked for only before a leaf is refused that may be rounding: an
                honest error is the largest among n others and itself once in n + 1 times.
        """

        def judge_again(verdict: LeafVerdict) -> LeafVerdict:
            measured = verdict.difference
            cost = costs.get(measured.leaf, 0.0)
            if measured.problem or not cost:
                return verdict
            if not measured.rel_l2 <= factor * cost:
                ratio = measured.rel_l2 / cost
                complaint = (
                    f"rel-L2 {measured.rel_l2:.3g} is {ratio:.3g} times what {dtype} must cost here "
                    f"({cost:.3g}), allowed {factor:g} times"
                )
                complaints = (*verdict.complaints, complaint)
                excess = max(verdict.excess, ratio / factor)
                return replace(verdict, excess=excess, complaints=complaints, second_chance=False)
            if verdict.ok and not verdict.second_chance:
                return verdict
            if not verdict.ok and cost <= verdict.limit:
                cost = more_costs().get(measured.leaf, cost)
            if cost <= verdict.limit:
                return verdict
            reason = (
                f"{dtype} must cost rel-L2 {cost:.3g} there, allowed {verdict.limit:.3g}; "
                f"its error is {measured.rel_l2:.3g}"
            )
            return replace(verdict, complaints=(), second_chance=False, unjudged=reason)

        return replace(self, verdicts=tuple(map(judge_again, self.verdicts)))

    def measures(self) -> dict[str, Any]:
        """The numbers of every leaf, and on top the largest rel-L2 and the leaf furthest beyond its limits."""
        if not self.verdicts:
            return {}
        summary: dict[str, Any] = {
            "rel_l2": max(v.difference.rel_l2 for v in self.verdicts),
            "worst": max(self.verdicts, key=lambda verdict: verdict.excess).difference.leaf,
            "leaves": {v.difference.leaf: v.difference.to_json() for v in self.verdicts},
        }
        excused = [v.difference.leaf for v in self.verdicts if v.second_chance]
        return {**summary, "second_chance": excused} if excused else summary


@at_stage(Stage.COMPARE)
def compare(actual: Outputs, reference: Outputs, tolerance: Tolerance, rounding: Rounding | None = None) -> Comparison:
    """Compare outputs with those of the reference.

    Args:
        actual: What the device returned, by dotted leaf name.
        reference: The same of the reference. Both are compared in fp64, whatever they were computed in.
        tolerance: The limits.
        rounding: The error of this dtype on the CPU, asked for only when a leaf is outside the limits.
    """
    both = [name for name in reference if name in actual]
    verdicts = [judge(difference(name, actual[name], reference[name], tolerance), tolerance) for name in both]
    if rounding is not None and tolerance.second_chance and not all(verdict.ok for verdict in verdicts):
        errors = rounding()
        verdicts = [_with_second_chance(v, errors.get(v.difference.leaf), tolerance) for v in verdicts]
    return Comparison(
        tuple(verdicts),
        tuple(name for name in reference if name not in actual),
        tuple(name for name in actual if name not in reference),
    )


def judge(measured: LeafDifference, tolerance: Tolerance) -> LeafVerdict:
    """Compare one leaf with the limits."""
    if measured.problem:
        return LeafVerdict(measured, float("inf"), (measured.problem,))
    complaints = []
    excess = measured.rel_l2 / tolerance.rel_l2
    if not excess <= 1.0:  # also when it is NaN
        complaints.append(f"rel-L2 {measured.rel_l2:.3g} > {tolerance.rel_l2:.3g}")
    if measured.outside:
        complaints.append(
            f"{measured.outside:.2%} of the elements outside rtol {tolerance.rtol:.3g}, atol {tolerance.atol:.3g}"
            f" (max abs {measured.max_abs:.3g}, max rel {measured.max_rel:.3g})"
        )
        excess = max(excess, 1.0 + measured.outside)
    if tolerance.cosine is not None and measured.cosine < tolerance.cosine:
        complaints.append(f"cosine {measured.cosine:.5f} < {tolerance.cosine}")
    if tolerance.top1 is not None and measured.leaf == "logits" and measured.top1 < tolerance.top1:
        complaints.append(f"same argmax at {measured.top1:.1%} of the positions < {tolerance.top1:.0%}")
    return LeafVerdict(measured, excess, tuple(complaints), limit=tolerance.rel_l2)


def largest_passing(rounding_error: float, tolerance: Tolerance) -> float:
    """The rel-L2 beyond which nothing passes, given the rel-L2 of the same dtype on the CPU."""
    return max(tolerance.rel_l2, SECOND_CHANCE_FACTOR * rounding_error if tolerance.second_chance else 0.0)


def _with_second_chance(verdict: LeafVerdict, rounding: LeafDifference | None, tolerance: Tolerance) -> LeafVerdict:
    if verdict.ok or verdict.difference.problem or rounding is None or rounding.problem:
        return verdict
    measured = verdict.difference
    limit = min(largest_passing(rounding.rel_l2, tolerance), tolerance.ceiling * tolerance.rel_l2)
    like_on_cpu = (
        measured.rel_l2 <= largest_passing(rounding.rel_l2, tolerance)
        and measured.max_abs <= SECOND_CHANCE_FACTOR * rounding.max_abs
    )
    if like_on_cpu and (measured.rel_l2 <= tolerance.ceiling * tolerance.rel_l2 or measured.outside == 0.0):
        return LeafVerdict(measured, 1.0, second_chance=True, limit=limit)
    note = f"on the CPU this dtype has rel-L2 {rounding.rel_l2:.3g}, max abs {rounding.max_abs:.3g}"
    return LeafVerdict(measured, verdict.excess, (*verdict.complaints, note), limit=limit)
