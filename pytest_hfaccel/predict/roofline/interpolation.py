"""Times between measured sizes. Imports numpy: import this file late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_hfaccel.predict.calibration.records import TimedOperator

_NEAR = 0.05
"""Added to squared distances (in doublings), so that a measured size does not outvote its neighbours alone: its own
time has noise, too."""

_ALIGNED = 16
"""Numbers of fp32 in a cache line of 64 bytes: rows of another length begin in the middle of one, and matrix products
that write them take half as long again (measured with vocabularies of 30,522 and 30,528 words)."""
_MISALIGNED = 2.0
"""How far apart aligned and misaligned rows are, in doublings."""


class Rates:
    """Floating-point operations per second of a kind of operator at any size.

    The logarithm of the rate is averaged over the nearest measured sizes, weighted by inverse squared distance on a
    logarithmic scale (Shepard 1968, "A two-dimensional interpolation function for irregularly-spaced data").

    Args:
        timed: The measured operators of the kind; none means that nothing is known.
        axes: Which numbers of their `size` are the coordinates.
        neighbours: How many of the nearest count.
        row: Which number of their `size` is the length of the result's rows, where its alignment matters.
    """

    def __init__(
        self, timed: Sequence[TimedOperator], axes: Sequence[int], neighbours: int = 4, row: int | None = None
    ) -> None:
        self._axes = list(axes)
        self._row = row
        self._neighbours = min(neighbours, len(timed))
        self._at = np.array([self._place(one.size) for one in timed]).reshape(len(timed), -1)
        self._log_rates = np.log([one.flops / one.seconds for one in timed])

    def __bool__(self) -> bool:
        return bool(len(self._log_rates))

    def at(self, size: Sequence[int]) -> float:
        """Return the rate at a size, given in full as in `TimedOperator.size`."""
        distances = ((self._at - self._place(size)) ** 2).sum(axis=1)
        nearest = np.argpartition(distances, self._neighbours - 1)[: self._neighbours]
        weights = 1.0 / (distances[nearest] + _NEAR)
        return float(np.exp((weights * self._log_rates[nearest]).sum() / weights.sum()))

    def _place(self, size: Sequence[int]) -> NDArray[np.float64]:
        place = [np.log2(max(1, size[axis])) for axis in self._axes]
        if self._row is not None:
            place.append(_MISALIGNED if size[self._row] % _ALIGNED else 0.0)
        return np.array(place)


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
