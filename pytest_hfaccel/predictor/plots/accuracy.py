"""Plots of predictions beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_hfaccel.predictor.plots.accuracy_rows import read_accuracy_rows
from pytest_hfaccel.predictor.plots.output import check_suffix, prepare_directory, require_plotting


def plot_accuracy(
    rows: Any, quantity: str, unit: str, output_dir: str | Path, *, source: str = "", suffix: str = ".png"
) -> list[Path]:
    """Draw predicted against measured numbers, and the distribution of the errors per family; one panel per device.

    Args:
        rows: A pandas frame, or an iterable of mappings, with the columns `predicted`, `measured`, `low`, `high` (the
            interval; may be `None`), `device`, `family` and `model`. Rows without a predicted or measured number are
            left out.
        quantity: What is predicted, e.g. `latency`.
        unit: Its unit, e.g. `ms`.
        output_dir: Where to write; it is made.
        source: How the predictions came about, for the subtitle, e.g. `leave one family out`.
        suffix: `.png` or `.svg`.

    Returns:
        `accuracy_<quantity>` and `errors_<quantity>`, each on as many pages as the devices take.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row has both; the suffix is unknown; the directory
            cannot be written; matplotlib or seaborn is missing.
    """
    suffix, read = check_suffix(suffix), read_accuracy_rows(rows)
    require_plotting()
    from pytest_hfaccel.predictor.plots.drawing.error_distribution import error_distribution
    from pytest_hfaccel.predictor.plots.drawing.predicted_measured import predicted_against_measured
    from pytest_hfaccel.predictor.plots.drawing.writing import write_pages

    pages = [draw(read, quantity, unit, source) for draw in (predicted_against_measured, error_distribution)]
    return write_pages((page for kind in pages for page in kind), prepare_directory(output_dir), suffix)
