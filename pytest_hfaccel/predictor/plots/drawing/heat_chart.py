"""A chart as heat maps: one row per model, one map per side. Imported late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from pytest_hfaccel.predictor.plots.drawing.chart import Chart, Side
from pytest_hfaccel.predictor.plots.drawing.entry import Entry
from pytest_hfaccel.predictor.plots.drawing.heatmap import HeatCell, HeatRow, HeatScale, draw_heat_maps
from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import page_numbers
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel
from pytest_hfaccel.predictor.plots.words import file_part, plain

ROWS_PER_PAGE = 40
COLUMNS_PER_PAGE = 18
MEASURED_MARK = "\u25cf"


def draw_heat_chart(chart: Chart) -> Iterator[tuple[str, Page]]:
    """Yield names of files, without suffix, and figures."""
    for part in _pages_of_sides(chart):
        values = [entry.value.value for entry in part.entries(part.models) if entry.value]
        if values:
            # One scale for all pages: the same colour is the same number.
            yield from _pages_of_rows(part, HeatScale(_label(part), min(values), max(values), chart.baseline))


def _pages_of_sides(chart: Chart) -> list[Chart]:
    """Maps side by side, as long as the figure does not become too wide to read."""
    if len(chart.sides) == 1 or len(chart.sides) * len(chart.columns) <= COLUMNS_PER_PAGE:
        return [chart]
    return [replace(chart, name=f"{chart.name}_{file_part(side.title)}", sides=[side]) for side in chart.sides]


def _label(chart: Chart) -> str:
    """What the colours show, where the sides show different things: all of it."""
    return " or ".join(dict.fromkeys(side.label for side in chart.sides))


def _pages_of_rows(chart: Chart, scale: HeatScale) -> Iterator[tuple[str, Page]]:
    titles, columns = [side.title for side in chart.sides], [plain(column) for column in chart.columns]
    for part, models in page_numbers(chart.models, ROWS_PER_PAGE):
        heading = chart.heading(models)
        caption = f"{MEASURED_MARK} measured, others predicted or of unstated source. {heading.caption}"
        heading = replace(heading, title=heading.title + part.title, caption=caption)
        yield chart.name + part.file, draw_heat_maps(_rows(chart, models), titles, columns, scale, heading)


def _rows(chart: Chart, models: Sequence[MatrixModel]) -> list[HeatRow]:
    rows: list[HeatRow] = []
    for family, members in groupby(models, key=lambda model: model.family):
        rows.append(HeatRow(plain(family), []))
        rows += [HeatRow(plain(model.name), [_cells(chart, model, side) for side in chart.sides]) for model in members]
    return rows


def _cells(chart: Chart, model: MatrixModel, side: Side) -> list[HeatCell]:
    return [_cell(side.entry(model, column)) for column in chart.columns]


def _cell(entry: Entry) -> HeatCell:
    mark = f"{MEASURED_MARK} " if entry.measured and entry.value else ""
    return HeatCell(entry.value, mark + entry.text.replace(" (", "\n("), framed=not entry.fits)
