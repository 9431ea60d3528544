"""A chart as bars: one panel per model and side. Imported late."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from pytest_hfaccel.predictor.plots.drawing.chart import Chart, Side
from pytest_hfaccel.predictor.plots.drawing.group_bars import Bar, BarScale, Group, bars_size, draw_bars
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import Panel, draw_panels, even_columns
from pytest_hfaccel.predictor.plots.drawing.style import FAINT, UNKNOWN_COLOUR
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel
from pytest_hfaccel.predictor.plots.words import NOT_MEASURED, plain

BarPanel = tuple[MatrixModel, str, BarScale, list[Group]]
"""The model, what differs from its other panels, the axis along the bars, and the bars."""


def draw_bar_chart(chart: Chart) -> Page:
    """Draw a chart on one page."""
    panels = [
        (model, side.title, BarScale(side.label, chart.baseline), _groups(chart, model, side))
        for model in chart.models
        for side in chart.sides
    ]
    # Two models in a row, each with all its panels.
    columns = 2 * len(chart.sides) if len(chart.sides) > 1 else even_columns(len(panels), 3)
    return draw_bar_panels(panels, chart.heading(chart.models), columns)


def _groups(chart: Chart, model: MatrixModel, side: Side) -> list[Group]:
    entries = {column: side.entry(model, column) for column in chart.columns}
    return [
        Group(plain(name), [Bar(entry.value, chart.columns[name], entry.measured)], entry.text, warn=not entry.fits)
        for name, entry in entries.items()
    ]


def draw_bar_panels(
    panels: Sequence[BarPanel], heading: Heading, columns: int, legend: Sequence[LegendEntry] = ()
) -> Page:
    """Draw panels of bars, so many in a row."""
    size = bars_size([groups for _, _, _, groups in panels], panels[0][2])
    drawn = [
        Panel(
            plain(model.name),
            " \u00b7 ".join(filter(None, (plain(model.family), title))),
            partial(draw_bars, groups=groups, scale=scale, size=size),
        )
        for model, title, scale, groups in panels
    ]
    return draw_panels(drawn, columns, size, heading, [*legend, *_measured_legend()])


def _measured_legend() -> list[LegendEntry]:
    faint = Patch(facecolor=to_rgba(UNKNOWN_COLOUR, FAINT), edgecolor=UNKNOWN_COLOUR)
    return [LegendEntry("measured", Patch(color=UNKNOWN_COLOUR)), LegendEntry(NOT_MEASURED, faint)]
