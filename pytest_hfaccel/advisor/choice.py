"""Which kind of device to recommend, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_hfaccel.advisor.candidate import Candidate


@dataclass(frozen=True)
class Choice:
    """The recommended kind of device.

    Attributes:
        chosen: The candidate that is recommended.
        explanation: Why, in sentences.
        source: What the choice rests on.
    """

    chosen: Candidate
    explanation: str
    source: str


def choose(candidates: Sequence[Candidate], asked: Sequence[str] = ()) -> Choice:
    """Choose among candidates, which come in the order in which their kinds are preferred.

    Only devices that are present, or were asked for, are considered; those that are present come first. Measured
    times decide between devices that have one, the order of preference decides elsewhere.

    Args:
        candidates: The model on each kind of device; at least one.
        asked: The kinds to choose among; when empty, those that are present.
    """
    considered = [each for each in candidates if (each.kind in asked if asked else each.is_present)] or list(candidates)
    usable = [each for each in considered if each.is_usable]
    ordered = _by_latency(sorted(usable, key=lambda each: not each.is_present))
    if not ordered:
        nearest = min(considered, key=lambda each: (not each.support.runs, each.peak_mb or 0))
        why = "No device considered can run it; the one named lacks the least."
        return Choice(nearest, f"{why} {_describe(considered)}", "no device passed")
    chosen = ordered[0]
    timed = [each for each in usable if each.latency_ms is not None]
    faster = chosen.latency_ms is not None and len(timed) > 1
    rule = "the fastest of the measured devices" if faster else "the first usable device in the order of preference"
    source = f"{chosen.support.basis} support, {'measured times' if faster else 'order of preference'}"
    return Choice(chosen, f"{chosen.kind} is {rule}. {_describe(considered)}", source)


def _by_latency(usable: list[Candidate]) -> list[Candidate]:
    """Let the fastest of the devices with a measured time take the first of their places."""
    timed = iter(
        sorted((each for each in usable if each.latency_ms is not None), key=lambda each: each.latency_ms or 0)
    )
    return [each if each.latency_ms is None else next(timed) for each in usable]


def _describe(candidates: Sequence[Candidate]) -> str:
    return "; ".join(each.describe() for each in candidates) + "."
