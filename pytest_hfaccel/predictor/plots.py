"""The place where plots used to be, kept for one release: `pytest_hfaccel.plots` has them."""

from __future__ import annotations

import warnings

from pytest_hfaccel.plots import plot_accuracy, plot_matrix, plot_measurements, plot_roofline

__all__ = ["plot_accuracy", "plot_matrix", "plot_measurements", "plot_roofline"]

warnings.warn(
    "pytest_hfaccel.predictor.plots has moved: import from pytest_hfaccel.plots.", DeprecationWarning, stacklevel=2
)
