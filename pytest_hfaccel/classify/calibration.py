"""Several analyses -> one answer, by weighted log-odds.

An analysis with confidence c in a family shifts that family's odds from the prior (one of six) to c; its weight says
how far it is let. The margin between the best family and the rest then becomes a probability by calibration.

The knots for that were fitted on the train half of the labels in `tests/data/` by `benchmarks/classifier_accuracy.py
--fit`, which says how: the answers by name, by class and by both, binned by margin, drawn towards what the log-odds
claim, made monotone, and lowered by 2 % because labels and tables have one author. Between knots is a straight line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from pytest_hfaccel.classify.records import Analysis

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
    """The best option, and by how much log-odds it leads all others together."""

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
            weights[name] = weights.get(name, 0.0) + WEIGHTS[source] * _shift(confidence)
    if not weights:
        return None
    winner = max(weights, key=lambda name: weights[name])
    return Choice(winner, 2 * weights[winner] - sum(weights.values()))


def _shift(confidence: float) -> float:
    """How far an analysis shifts the log-odds; never below 0, an analysis does not speak against what it names."""
    confidence = min(max(confidence, PRIOR), _CERTAIN)
    return log(confidence / (1 - confidence)) - log(PRIOR / (1 - PRIOR))


Knots = Sequence[tuple[float, float]]
"""(margin, probability), both ascending."""

FAMILY: Knots = (
    (0.14, 0.504),
    (0.17, 0.504),
    (0.66, 0.66),
    (1.26, 0.66),
    (1.65, 0.924),
    (1.9, 0.924),
    (2.52, 0.949),
    (2.84, 0.949),
    (3.01, 0.965),
    (3.35, 0.965),
    (4.1, 0.979),
    (5.22, 0.979),
    (5.53, 0.98),
    (6.36, 0.98),
    (6.62, 0.98),
    (7.45, 0.98),
    (8.44, 0.98),
)
SUBFAMILY: Knots = (
    (0.24, 0.531),
    (0.62, 0.531),
    (1.65, 0.844),
    (2.7, 0.844),
    (3.01, 0.96),
    (3.05, 0.96),
    (3.93, 0.962),
    (4.1, 0.965),
    (4.42, 0.965),
    (4.73, 0.971),
    (4.91, 0.971),
    (5.82, 0.98),
    (7.15, 0.98),
    (8.44, 0.98),
)


def probability(margin: float, knots: Knots) -> float:
    """Return the share of answers of this margin that are right."""
    at = bisect_right([margin_of for margin_of, _ in knots], margin)
    if at == 0:
        return knots[0][1]
    if at == len(knots):
        return knots[-1][1]
    (left, low), (right, high) = knots[at - 1], knots[at]
    return low + (high - low) * (margin - left) / (right - left)
