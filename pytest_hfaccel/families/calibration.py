"""Margins -> probabilities.

The knots were fitted on the train half of `tests/data/family_labels.json` by `benchmarks/classifier_accuracy.py
--fit`, which says how: the answers by name, by class and by both, binned by margin, drawn towards what the log-odds
claim, made monotone, and lowered by 3 % because labels and tables have one author. Between knots is a straight line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

Knots = Sequence[tuple[float, float]]
"""(margin, probability), both ascending."""

FAMILY: Knots = (
    (0.24, 0.584),
    (1.72, 0.756),
    (1.9, 0.756),
    (2.52, 0.962),
    (5.22, 0.962),
    (5.53, 0.967),
    (6.06, 0.967),
    (6.62, 0.971),
)
SUBFAMILY: Knots = (
    (0.62, 0.439),
    (1.72, 0.868),
    (2.7, 0.868),
    (3.01, 0.93),
    (3.05, 0.93),
    (3.93, 0.938),
    (4.1, 0.97),
    (8.44, 0.971),
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


def is_monotone(knots: Knots) -> bool:
    """Whether the knots ascend in both directions, as `probability` needs."""
    return all(one[0] < other[0] and one[1] <= other[1] for one, other in pairwise(knots))
