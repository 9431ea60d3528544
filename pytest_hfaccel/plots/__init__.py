"""Plots of what was measured and predicted.

Cheap to import: matplotlib and seaborn (`pip install 'pytest-hfaccel[predict]'`) are imported by the first plot. All
functions check their whole input before they draw, make the directory, replace older files of the same name, and
return the files they wrote. `suffix` is `.png` or `.svg`. `docs/plots.md` says what each file shows.

All raise `ConfigError` where the input has mistakes (all of them are listed) or no number, the suffix is unknown, the
directory cannot be written, or matplotlib or seaborn is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.plots.inputs import (
    read_accuracy_rows,
    read_matrix,
    read_measurements,
    read_roof,
    read_roofline_points,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pytest_hfaccel.benchmark.measurement import Measurement

__all__ = ["plot_accuracy", "plot_matrix", "plot_measurements", "plot_roofline"]

SUFFIXES = (".png", ".svg")


def plot_matrix(matrix: Mapping[str, Any], output_dir: str | Path, *, suffix: str = ".png") -> list[Path]:
    """Draw a prediction matrix: hardware comparison, batch scaling, efficiency, memory and precision impact.

    Up to 12 models have a panel each; more become the rows of heat maps, grouped by family. A plot that would show no
    number is left out.

    Args:
        matrix: In the format of the predictor's guide. Throughput is in samples/s, latency in ms, memory in MiB. Cells
            may add `latency_low`, `latency_high`, `memory_low`, `memory_high`, `source`, `memory_source` and `fits`, be
            missing, or be `None`; `matrix["devices"]` may give `{"cuda": {"name": ..., "memory_mb": ...}}`.
        output_dir: Where to write.
        suffix: `.png` or `.svg`.
    """
    _check_suffix(suffix)
    table = read_matrix(matrix)
    return _draw("matrix", output_dir, suffix, table)


def plot_measurements(
    measurements: Iterable[Measurement], output_dir: str | Path, *, suffix: str = ".png"
) -> list[Path]:
    """Draw what was measured: latency, memory, throughput and noise.

    A model has one panel per kind of weights and mode: tiny weights say nothing about the model that bears the name.
    Several runs of a point are drawn as one: the median of their medians, with the outermost percentiles.
    """
    _check_suffix(suffix)
    runs = read_measurements(measurements)
    return _draw("measurements", output_dir, suffix, runs)


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
        output_dir: Where to write.
        source: How the predictions came about, for the subtitle, e.g. `leave one family out`.
        suffix: `.png` or `.svg`.
    """
    _check_suffix(suffix)
    read = read_accuracy_rows(rows)
    return _draw("accuracy", output_dir, suffix, read, quantity, unit, source)


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
        output_dir: Where to write.
        roof_source: Where peak and bandwidth come from, for the subtitle, e.g. `calibration of 2026-03-02`.
        suffix: `.png` or `.svg`.
    """
    _check_suffix(suffix)
    read, roof = read_roofline_points(points), read_roof(device, peak_flops, bandwidth)
    return _draw("roofline", output_dir, suffix, read, roof, roof_source)


def _check_suffix(suffix: str) -> None:
    if suffix not in SUFFIXES:
        raise ConfigError(f"plots: suffix {suffix!r} is not known. Allowed: {', '.join(SUFFIXES)}.")


def _draw(module: str, output_dir: str | Path, suffix: str, *arguments: Any) -> list[Path]:
    """Draw and write the figures of a module one after the other; only one is in memory at a time."""
    for package in ("matplotlib", "seaborn"):
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"plots: {package} cannot be imported: {error}",
                hint="Install it: pip install 'pytest-hfaccel[predict]'",
            ) from error
    from pytest_hfaccel.plots.style import house_style, save

    directory = Path(output_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: plots cannot be written there: {error.strerror}") from error
    drawing = import_module(f"pytest_hfaccel.plots.{module}")
    with house_style():
        figures: Iterator[tuple[str, Figure]] = drawing.figures(*arguments)
        return [save(figure, directory / f"{name}{suffix}") for name, figure in figures]
