"""Several analyses -> one answer, by weighted log-odds.

An analysis with confidence c in a family shifts that family's odds from the prior (one of six) to c; its weight says
how far it is let. The margin between the best family and the rest then becomes a probability by calibration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log

from pytest_hfaccel.families.records import Analysis

WEIGHTS: Mapping[str, float] = {
    "config_analysis": 1.0,
    "task_analysis": 1.0,
    "class_analysis": 0.9,
    "method_analysis": 0.8,
    "name_analysis": 0.7,
    "hardware_analysis": 0.5,
}
"""How far each kind of evidence is trusted; those of the guide, and the checkpoint's own config with the first."""

PRIOR = 1 / 6
"""Of a family before any evidence."""
_CERTAIN = 0.995


@dataclass(frozen=True)
class Choice:
    """The best option.

    Attributes:
        name: Family or subfamily.
        margin: Its weighted log-odds less those of everything that speaks against it.
    """

    name: str
    margin: float


def choose_family(analyses: Iterable[Analysis]) -> Choice | None:
    """Weigh what the analyses say about the family; `None` when none points to any."""
    return _choose((each["family"], each["confidence"], each["source"]) for each in analyses)


def choose_subfamily(analyses: Iterable[Analysis], family: str) -> Choice | None:
    """Weigh what the analyses that point to `family` say about its subfamily."""
    return _choose(
        (each["subfamily"], each["subfamily_confidence"], each["source"])
        for each in analyses
        if each["family"] == family
    )


def _choose(votes: Iterable[tuple[str | None, float, str]]) -> Choice | None:
    weights: dict[str, float] = {}
    for name, confidence, source in votes:
        if name:
            weights[name] = weights.get(name, 0.0) + WEIGHTS[source] * strength(confidence)
    if not weights:
        return None
    winner = max(weights, key=lambda name: weights[name])
    return Choice(winner, 2 * weights[winner] - sum(weights.values()))


def strength(confidence: float) -> float:
    """How far an analysis shifts the log-odds; never below 0, an analysis does not speak against what it names."""
    held = min(max(confidence, PRIOR), _CERTAIN)
    return log(held / (1 - held)) - log(PRIOR / (1 - PRIOR))
