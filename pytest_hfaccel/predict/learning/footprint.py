"""Memory: weights, activations and outputs, weighted by what a runtime makes of them, then a learned residual.

Imports numpy: import this file late.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_hfaccel.predict.learning.residual import Residual
from pytest_hfaccel.predict.learning.rows import Array, Point, Row, features_of
from pytest_hfaccel.predict.learning.weights import fit_weights

_MIB = 2.0**20
_PRIOR = np.array([1.0, 0.0, 1.0, 0.0, 10.0])
_PULL = np.array([0.5, 0.1, 0.1, 0.1, 0.0])
"""Of weights, of weights that go into matrix products (some runtimes hold a second copy in their own layout), of
activations, of outputs, and of a constant in MiB."""


class MemoryModel:
    """Learns what a runtime holds besides weights and activations."""

    def __init__(self) -> None:
        self._weights = _PRIOR
        self._residual: Residual | None = None

    def fit(self, rows: Sequence[Row]) -> MemoryModel:
        """Learn from the rows whose memory was measured."""
        known = [row for row in rows if row.memory_bytes]
        points = [row.point for row in known]
        measured = np.array([float(row.memory_bytes or 0) / _MIB for row in known])
        self._weights = fit_weights(_columns(points), measured, _PRIOR, _PULL)
        log_errors = np.log(measured / (_columns(points) @ self._weights))
        self._residual = Residual().fit(features_of(points), log_errors)
        return self

    def predict(self, points: Sequence[Point]) -> Array:
        """Return the MiB that models add to the memory of their device at the peak."""
        mib = np.asarray(_columns(points) @ self._weights, dtype=np.float64)
        return mib if self._residual is None else mib * self._residual.factors(features_of(points))


def _columns(points: Sequence[Point]) -> Array:
    return np.array(
        [
            [
                point.trace.weight_bytes / _MIB,
                point.trace.multiplied_bytes / _MIB,
                point.trace.activation_bytes / _MIB,
                point.trace.output_bytes / _MIB,
                1.0,
            ]
            for point in points
        ]
    )
