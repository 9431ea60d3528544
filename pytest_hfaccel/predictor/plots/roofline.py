"""A roofline plot: what a device can do, and what models made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_hfaccel.predictor.plots.output import check_suffix, prepare_directory, require_plotting
from pytest_hfaccel.predictor.plots.roofline_points import read_roof, read_roofline_points


def plot_roofline(
    points: Any,
    peak_flops: float,
    bandwidth: float,
    device: str,
    output_dir: str | Path,
    *,
    roof_source: str = "",
    suffix: str = ".png",
) -> list[Path]:
    """Draw the roofline of a device with models on it.

    Args:
        points: A pandas frame, or an iterable of mappings, with `model`, `flops`, `moved_bytes` and `seconds` of a run
            and, if wanted, `family` (colours) and `source` (`measured` points are filled, others open).
        peak_flops: The device's FLOP/s.
        bandwidth: The device's bytes/s.
        device: The device's name.
        output_dir: Where to write; it is made.
        roof_source: Where peak and bandwidth come from, for the subtitle, e.g. `calibration of 2026-03-02`.
        suffix: `.png` or `.svg`.

    Returns:
        `roofline_<device>`.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row is complete; the suffix is unknown; the directory
            cannot be written; matplotlib or seaborn is missing.
    """
    suffix, read, roof = check_suffix(suffix), read_roofline_points(points), read_roof(device, peak_flops, bandwidth)
    require_plotting()
    from pytest_hfaccel.predictor.plots.drawing.roofline_chart import roofline_chart
    from pytest_hfaccel.predictor.plots.drawing.writing import write_pages

    return write_pages(roofline_chart(read, roof, roof_source), prepare_directory(output_dir), suffix)
