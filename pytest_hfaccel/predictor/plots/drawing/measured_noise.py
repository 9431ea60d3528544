"""How far measurements can be trusted: the spread of latencies, and what the machine did meanwhile. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predictor.plots.drawing.measured_looks import measured_on, setup_colours
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import Panel, PanelSize, draw_panels, label_axes
from pytest_hfaccel.predictor.plots.drawing.scales import linear_axis, log_axis
from pytest_hfaccel.predictor.plots.drawing.style import UNKNOWN_COLOUR, WARNING_COLOUR, markers
from pytest_hfaccel.predictor.plots.measured_runs import MeasuredRuns

SIZE = PanelSize(width=3.6, height=2.5, left=0.55)
HOW = (
    "One mark per measured point. Spread: distance between the quartiles of the timed runs. Uncertainty: half the 95 % "
    "interval of the median. Drift: how much slower a fixed piece of work was after the measurement than before; its "
    "own spread is that between its quartiles."
)


def noise(runs: MeasuredRuns) -> Iterator[tuple[str, Page]]:
    """Draw three panels on one page."""
    panels = [
        Panel("Spread of the latency", "of the timed runs", partial(_spread, runs)),
        Panel("Uncertainty of the median", "what the repetitions reached", partial(_uncertainty, runs)),
        Panel("Drift of the machine", "work that is always the same", partial(_drift, runs)),
    ]
    colours, marks = setup_colours(runs), markers(runs.setups)
    legend = [LegendEntry(setup, _mark(colours[setup], marks[setup])) for setup in runs.setups]
    if any(row.noise.throttled for row in runs.rows):
        ring = Line2D([], [], linestyle="", marker="o", markersize=9, markerfacecolor="none", color=WARNING_COLOUR)
        legend.append(LegendEntry("throttled meanwhile", ring))
    heading = Heading("Noise of the measurements", measured_on(runs), HOW)
    yield "noise", draw_panels(panels, 3, SIZE, heading, legend)


def _mark(colour: str, marker: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, linestyle="", alpha=0.75)


def _spread(runs: MeasuredRuns, axes: Axes) -> None:
    _latency_axis(runs, axes)
    _scatter(runs, axes, [100 * row.latency.iqr_ms / row.latency.median_ms for row in runs.rows])
    label_axes(axes, "median latency (ms)", "quartile distance / median (%)")


def _uncertainty(runs: MeasuredRuns, axes: Axes) -> None:
    _latency_axis(runs, axes)
    _scatter(runs, axes, [100 * row.latency.relative_error for row in runs.rows])
    label_axes(axes, "median latency (ms)", "relative error of the median (%)")


def _latency_axis(runs: MeasuredRuns, axes: Axes) -> None:
    medians = [row.latency.median_ms for row in runs.rows]
    log_axis(axes, "x", min(medians), max(medians), SIZE.width)


def _scatter(runs: MeasuredRuns, axes: Axes, values: list[float]) -> None:
    linear_axis(axes, "y", 0.0, 1.1 * max(*values, 1.0), SIZE.height)
    _draw(runs, axes, [row.latency.median_ms for row in runs.rows], values)


def _drift(runs: MeasuredRuns, axes: Axes) -> None:
    drifts = [100 * row.noise.drift for row in runs.rows]
    spreads = [100 * row.noise.iqr_share for row in runs.rows]
    far = 1.15 * max(1.0, *(abs(drift) for drift in drifts))
    linear_axis(axes, "x", 0.0, 1.1 * max(1.0, *spreads), SIZE.width)
    linear_axis(axes, "y", -far, far, SIZE.height)
    axes.axhline(0, color=UNKNOWN_COLOUR, linewidth=1)
    _draw(runs, axes, spreads, drifts)
    label_axes(axes, "spread of the fixed work (%)", "drift (%)")


def _draw(runs: MeasuredRuns, axes: Axes, across: list[float], up: list[float]) -> None:
    colours, marks = setup_colours(runs), markers(runs.setups)
    for setup in runs.setups:
        shown = [index for index, row in enumerate(runs.rows) if runs.setup(row) == setup]
        axes.plot(
            [across[i] for i in shown], [up[i] for i in shown], marks[setup],
            color=colours[setup], alpha=0.75, markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    _rings(runs.rows, axes, across, up)


def _rings(rows: list[Measurement], axes: Axes, across: list[float], up: list[float]) -> None:
    shown = [index for index, row in enumerate(rows) if row.noise.throttled]
    axes.plot(
        [across[i] for i in shown], [up[i] for i in shown], "o",
        color=WARNING_COLOUR, markerfacecolor="none", markersize=9,
    )  # fmt: skip
