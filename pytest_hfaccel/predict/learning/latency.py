"""Latency: the roofline's groups weighted by what was measured, then a learned residual. Import this file late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.learning.residual import Residual
from pytest_hfaccel.predict.learning.rows import Array, Point, Row, features_of
from pytest_hfaccel.predict.learning.weights import fit_weights
from pytest_hfaccel.predict.roofline.kinds import GROUPS

_PULL = 1.0
"""How strongly a group's weight is held at 1, in units of the relative error of one row."""


class LatencyModel:
    """Learns how a runtime's forward passes differ from the sum of their operators.

    A runtime that fuses operators gets small weights for activations and copies; one that is driven by Python gets a
    time per operator.

    Args:
        calibration: Of the device: where the weights start.
    """

    def __init__(self, calibration: DeviceCalibration) -> None:
        per_launch, per_call = calibration.module_seconds or 1e-6, calibration.call_seconds or 1e-5
        self._scale = np.array([*np.ones(len(GROUPS)), per_launch, per_call])
        self._prior = np.array([*np.ones(len(GROUPS)), float(calibration.module_seconds > 0), 1.0])
        self._weights = self._prior
        self._residual: Residual | None = None

    def fit(self, rows: Sequence[Row]) -> LatencyModel:
        """Learn from measured rows."""
        points = [row.point for row in rows]
        seconds = np.array([row.seconds for row in rows])
        pull = np.array([*(_PULL * np.ones(len(GROUPS))), _PULL, 0.0])
        self._weights = fit_weights(self._columns(points), seconds, self._prior, pull)
        log_errors = np.log(seconds / self.weighted(points))
        self._residual = Residual().fit(features_of(points), log_errors)
        return self

    def weighted(self, points: Sequence[Point]) -> Array:
        """Return the seconds by weighted groups alone, without the residual."""
        return np.asarray(self._columns(points) @ self._weights, dtype=np.float64)

    def predict(self, points: Sequence[Point]) -> Array:
        """Return the seconds of forward passes."""
        seconds = self.weighted(points)
        return seconds if self._residual is None else seconds * self._residual.factors(features_of(points))

    def _columns(self, points: Sequence[Point]) -> Array:
        columns = np.array([[*point.groups, point.launches, 1.0] for point in points])
        return np.asarray(columns * self._scale, dtype=np.float64)
