"""Times between measured sizes. Imports numpy: import this file late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_hfaccel.predictor.calibration.records import TimedOperator

_NEAR = 0.05
"""Added to squared distances (in doublings), so that a measured size does not outvote its neighbours alone: its own
time has noise, too."""


class Rates:
    """Floating-point operations per second of a kind of operator at any size.

    The logarithm of the rate is averaged over the nearest measured sizes, weighted by inverse squared distance on a
    logarithmic scale (Shepard 1968, "A two-dimensional interpolation function for irregularly-spaced data").

    Args:
        timed: The measured operators of the kind; none means that nothing is known.
        axes: Which numbers of their `size` are the coordinates.
        neighbours: How many of the nearest count.
    """

    def __init__(self, timed: Sequence[TimedOperator], axes: Sequence[int], neighbours: int = 4) -> None:
        self._axes = list(axes)
        self._neighbours = min(neighbours, len(timed))
        self._at = np.log2([[one.size[axis] for axis in axes] for one in timed] or np.empty((0, len(axes))))
        self._log_rates = np.log([one.flops / one.seconds for one in timed])

    def __bool__(self) -> bool:
        return bool(len(self._log_rates))

    def at(self, size: Sequence[int]) -> float:
        """Return the rate at a size, given in full as in `TimedOperator.size`."""
        here = np.log2([max(1, size[axis]) for axis in self._axes])
        distances = ((self._at - here) ** 2).sum(axis=1)
        nearest = np.argpartition(distances, self._neighbours - 1)[: self._neighbours]
        weights = 1.0 / (distances[nearest] + _NEAR)
        return float(np.exp((weights * self._log_rates[nearest]).sum() / weights.sum()))


class Times:
    """Seconds of an operator that moves numbers, by how many it writes; beyond the largest size in proportion."""

    def __init__(self, timed: Sequence[TimedOperator]) -> None:
        by_size = sorted({one.size[0]: one.seconds for one in timed}.items())
        self._log_sizes = np.log([size for size, _ in by_size])
        self._log_seconds = np.log([seconds for _, seconds in by_size])

    def at(self, numbers: float) -> float:
        """Return the seconds for so many numbers."""
        log_size = float(np.log(max(1.0, numbers)))
        beyond = max(0.0, log_size - float(self._log_sizes[-1]))
        return float(np.exp(np.interp(log_size, self._log_sizes, self._log_seconds) + beyond))
