"""Outputs against reference outputs, leaf by leaf, with one readable text about the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.leaf import LeafDifference, difference
from pytest_hfaccel.checks.tolerances import SECOND_CHANCE_FACTOR, Tolerance

if TYPE_CHECKING:
    import torch

    Outputs = Mapping[str, torch.Tensor]

Rounding = Callable[[], Mapping[str, LeafDifference]]
"""Gives, when called, the error of the same dtype on torch's CPU by leaf; empty where that could not be measured."""


@dataclass(frozen=True)
class LeafVerdict:
    """Whether one leaf is close enough.

    Attributes:
        difference: The numbers.
        excess: Worst number divided by its limit; at most 1 means close enough. Infinite where `difference.problem`.
        complaints: What is outside, each with number and limit; empty when close enough.
        second_chance: Whether only the rule "at most 3x the error of this dtype on the CPU" let it pass.
    """

    difference: LeafDifference
    excess: float
    complaints: tuple[str, ...] = ()
    second_chance: bool = False

    @property
    def ok(self) -> bool:
        """Whether the leaf is close enough."""
        return not self.complaints


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
        return bool(self.verdicts) and not (self.missing or self.unexpected) and all(v.ok for v in self.verdicts)

    @property
    def worst(self) -> LeafVerdict | None:
        """The leaf furthest beyond its limits, or nearest to them."""
        return max(self.verdicts, key=lambda verdict: verdict.excess, default=None)

    def text(self) -> str:
        """What is wrong: missing leaves, then the worst leaf with its numbers and limits, then the other bad ones."""
        lines = [f"missing output {name!r}" for name in self.missing]
        lines += [f"unexpected output {name!r}" for name in self.unexpected]
        bad = sorted((v for v in self.verdicts if not v.ok), key=lambda verdict: -verdict.excess)
        lines += [f"{verdict.difference.leaf}: {'; '.join(verdict.complaints)}" for verdict in bad]
        return "\n".join(lines) or ("" if self.verdicts else "there are no outputs to compare")

    def measures(self) -> dict[str, Any]:
        """The numbers of every leaf, and those of the worst on top."""
        worst = self.worst
        if worst is None:
            return {}
        by_leaf = {v.difference.leaf: v.difference.to_json() for v in self.verdicts}
        excused = [v.difference.leaf for v in self.verdicts if v.second_chance]
        summary = {"rel_l2": max(v.difference.rel_l2 for v in self.verdicts), "worst": worst.difference.leaf}
        return {**summary, "leaves": by_leaf, **({"second_chance": excused} if excused else {})}


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
        verdicts = [_excused(v, errors.get(v.difference.leaf), tolerance) for v in verdicts]
    return Comparison(
        tuple(verdicts),
        tuple(name for name in reference if name not in actual),
        tuple(name for name in actual if name not in reference),
    )


def judge(found: LeafDifference, tolerance: Tolerance) -> LeafVerdict:
    """Hold one leaf against the limits."""
    if found.problem:
        return LeafVerdict(found, float("inf"), (found.problem,))
    complaints = []
    excess = found.rel_l2 / tolerance.rel_l2
    if not excess <= 1.0:  # also when it is NaN
        complaints.append(f"rel-L2 {found.rel_l2:.3g} > {tolerance.rel_l2:.3g}")
    if found.outside:
        complaints.append(
            f"{found.outside:.2%} of the elements outside rtol {tolerance.rtol:.3g}, atol {tolerance.atol:.3g}"
            f" (max abs {found.max_abs:.3g}, max rel {found.max_rel:.3g})"
        )
        excess = max(excess, 1.0 + found.outside)
    if tolerance.cosine is not None and found.cosine < tolerance.cosine:
        complaints.append(f"cosine {found.cosine:.5f} < {tolerance.cosine}")
    if tolerance.top1 is not None and found.leaf == "logits" and found.top1 < tolerance.top1:
        complaints.append(f"same argmax at {found.top1:.1%} of the positions < {tolerance.top1:.0%}")
    return LeafVerdict(found, excess, tuple(complaints))


def largest_passing(rounding_error: float, tolerance: Tolerance) -> float:
    """The rel-L2 beyond which nothing passes, given the rel-L2 of the same dtype on the CPU."""
    return max(tolerance.rel_l2, SECOND_CHANCE_FACTOR * rounding_error if tolerance.second_chance else 0.0)


def _excused(verdict: LeafVerdict, rounding: LeafDifference | None, tolerance: Tolerance) -> LeafVerdict:
    if verdict.ok or verdict.difference.problem or rounding is None or rounding.problem:
        return verdict
    found = verdict.difference
    like_on_cpu = (
        found.rel_l2 <= largest_passing(rounding.rel_l2, tolerance)
        and found.max_abs <= SECOND_CHANCE_FACTOR * rounding.max_abs
    )
    if like_on_cpu and (found.rel_l2 <= tolerance.ceiling * tolerance.rel_l2 or found.outside == 0.0):
        return LeafVerdict(found, 1.0, second_chance=True)
    note = f"on the CPU this dtype has rel-L2 {rounding.rel_l2:.3g}, max abs {rounding.max_abs:.3g}"
    return LeafVerdict(found, verdict.excess, (*verdict.complaints, note))
