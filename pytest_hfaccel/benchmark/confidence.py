"""How well a median is known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import lru_cache

_TAILS = 40
"""1 / 0.025: each end of a 95 % interval leaves out 2.5 %."""


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the confidence interval of the median, from order statistics alone: no distribution is assumed.

    The number of values below the true median is binomial with p = 1/2, so the k-th smallest and k-th largest value
    enclose the median with probability 1 - 2 P(B(n, 1/2) <= k - 1); the largest k for which that is at least 95 % is
    taken. W. J. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, section 3.2. Below 6 values no k is enough,
    and the extremes are returned.

    Args:
        values: At least one.
    """
    ordered = sorted(values)
    rank = max(1, enclosing_rank(len(ordered)))
    return ordered[rank - 1], ordered[-rank]


def relative_error(values: Sequence[float]) -> float:
    """Return half the width of the median's confidence interval, as a share of the median."""
    low, high = median_interval(values)
    median = statistics.median(values)
    return (high - low) / 2.0 / median if median else 0.0


@lru_cache(maxsize=4096)
def enclosing_rank(count: int) -> int:
    """Return the largest k whose k-th smallest and k-th largest of `count` values enclose the median; 0 for none."""
    rank, term, below = 0, 1, 1  # `below` is 2^count times P(B(count, 1/2) <= rank)
    while _TAILS * below <= 2**count:
        rank += 1
        term = term * (count - rank + 1) // rank
        below += term
    return rank
