"""Plots of measured points."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predictor.plots.measured_runs import read_runs
from pytest_hfaccel.predictor.plots.output import check_suffix, prepare_directory, require_plotting


def plot_measurements(
    measurements: Iterable[Measurement], output_dir: str | Path, *, suffix: str = ".png"
) -> list[Path]:
    """Draw what was measured: four kinds of plots, each on as many pages as it takes.

    | file | shows | is left out |
    |---|---|---|
    | `latency` | latency by batch and length, 5th to 95th percentile | |
    | `measured_memory` | peak memory by batch and length, and the weights | without a known memory |
    | `throughput` | throughput by device, precision and batch | |
    | `noise` | spread of the latencies, and drift of the machine | |

    A model has one panel per kind of weights and mode: tiny weights say nothing about the model that bears the name.
    Several runs of a point are drawn as one: the median of their medians, with the outermost percentiles.

    Args:
        measurements: The points.
        output_dir: Where to write; it is made.
        suffix: `.png` or `.svg`.

    Returns:
        The files, in the order of the table.

    Raises:
        ConfigError: There is no measurement, or something else than measurements; the suffix is unknown; the directory
            cannot be written; matplotlib or seaborn is missing.
    """
    suffix, runs = check_suffix(suffix), read_runs(measurements)
    require_plotting()
    from pytest_hfaccel.predictor.plots.drawing.measured_lines import latency, measured_memory
    from pytest_hfaccel.predictor.plots.drawing.measured_noise import noise
    from pytest_hfaccel.predictor.plots.drawing.measured_throughput import throughput
    from pytest_hfaccel.predictor.plots.drawing.writing import write_pages

    kinds = (latency, measured_memory, throughput, noise)
    return write_pages((page for kind in kinds for page in kind(runs)), prepare_directory(output_dir), suffix)
