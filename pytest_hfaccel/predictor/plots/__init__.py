"""Plots of what was measured and predicted. Cheap to import: matplotlib and seaborn are imported by the first plot.

plot_matrix         a prediction matrix: platforms, batches, memory, precisions
plot_measurements   measured points: latency, memory, throughput, noise
plot_accuracy       predicted against measured
plot_roofline       what a device can do, and what models made of it
"""

from pytest_hfaccel.predictor.plots.accuracy import plot_accuracy
from pytest_hfaccel.predictor.plots.matrix import plot_matrix
from pytest_hfaccel.predictor.plots.measurements import plot_measurements
from pytest_hfaccel.predictor.plots.roofline import plot_roofline

__all__ = ["plot_accuracy", "plot_matrix", "plot_measurements", "plot_roofline"]
