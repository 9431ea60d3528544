"""Bars of memory by batch, with the device's memory as a line. Imported late."""

from __future__ import annotations

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pytest_hfaccel.predictor.plots.drawing.bar_chart import draw_bar_panels
from pytest_hfaccel.predictor.plots.drawing.chart import Chart
from pytest_hfaccel.predictor.plots.drawing.entry import NO_FIT, UNKNOWN, Entry
from pytest_hfaccel.predictor.plots.drawing.group_bars import LIMIT_STYLE, Bar, BarScale, Group
from pytest_hfaccel.predictor.plots.drawing.page import LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import even_columns
from pytest_hfaccel.predictor.plots.drawing.style import WARNING_COLOUR, ordered_colours
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel
from pytest_hfaccel.predictor.plots.memory_unit import MemoryUnit
from pytest_hfaccel.predictor.plots.words import compact, plain


def draw_memory_bars(chart: Chart, unit: MemoryUnit) -> Page:
    """Draw one panel per model: a group of bars per platform, one bar per batch (the sides of the chart)."""
    colours = ordered_colours(len(chart.sides))
    scale = BarScale(chart.sides[0].label, thickness=0.17 if len(chart.sides) < 3 else 0.11)
    models = chart.models
    panels = [
        (model, "", scale, [_group(chart, model, name, colours, unit) for name in chart.columns]) for model in models
    ]
    return draw_bar_panels(panels, chart.heading(models), even_columns(len(panels), 3), _legend(chart, colours))


def _legend(chart: Chart, colours: list[str]) -> list[LegendEntry]:
    batches = [LegendEntry(side.title, Patch(color=colour)) for side, colour in zip(chart.sides, colours, strict=True)]
    if not chart.table.device_memory:
        return batches
    line = Line2D([], [], color=WARNING_COLOUR, linewidth=1.6, linestyle=LIMIT_STYLE)
    return [*batches, LegendEntry("memory of the device, where it is near", line)]


def _group(chart: Chart, model: MatrixModel, name: str, colours: list[str], unit: MemoryUnit) -> Group:
    entries = [side.entry(model, name) for side in chart.sides]
    size = chart.table.device_memory.get(name)
    limit = size * unit.per_mebibyte if size else None
    bars = [Bar(entry.value, colour, entry.measured) for entry, colour in zip(entries, colours, strict=True)]
    fits = all(entry.fits for entry in entries)
    return Group(plain(name), bars, _note(entries, limit, unit), limit=limit, warn=not fits)


def _note(entries: list[Entry], limit: float | None, unit: MemoryUnit) -> str:
    """The smallest and the largest number, and what the device has."""
    values = [entry.value.value for entry in entries if entry.value]
    if not values:
        return UNKNOWN if all(entry.fits for entry in entries) else NO_FIT
    span = "\u2013".join(dict.fromkeys([compact(min(values)), compact(max(values))]))
    return f"{span} of {compact(limit)} {unit.name}" if limit else f"{span} {unit.name}"
