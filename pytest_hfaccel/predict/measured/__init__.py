"""Predictions from measured rows of the model itself."""

from __future__ import annotations

from pytest_hfaccel.predict.measured.layer import MeasuredLayer
from pytest_hfaccel.predict.measured.rows import MeasuredPoint, points_of

__all__ = ["MeasuredLayer", "MeasuredPoint", "points_of"]
