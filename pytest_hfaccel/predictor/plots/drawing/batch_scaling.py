"""How throughput and latency grow with the batch, by platform. Imported late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from pytest_hfaccel.predictor.plots.drawing.entry import Entry
from pytest_hfaccel.predictor.plots.drawing.line_panel import SIZE, LinePoint, LineScale, Look, Series, draw_lines
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words, matrix_heading
from pytest_hfaccel.predictor.plots.drawing.page import LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import Panel, draw_panels, page_numbers
from pytest_hfaccel.predictor.plots.drawing.style import UNKNOWN_COLOUR, hardware_colours, markers
from pytest_hfaccel.predictor.plots.matrix_table import MatrixCell, MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.words import NOT_MEASURED, file_part, plain

MODELS_PER_PAGE = 12
TITLE = "Batch scaling: throughput and latency by batch size"
HOW = "Logarithmic axes. Lines end where the model does not fit or nothing is known."
UNITS = {"throughput": "samples/s", "latency": "ms"}


def batch_scaling(table: MatrixTable) -> Iterator[tuple[str, Page]]:
    """Draw one chart per precision; none when there is only one batch size."""
    for precision in table.precisions if len(table.batches) > 1 else []:
        shown = [model for model in table.models if any(entry.value for entry in _entries(table, [model], precision))]
        left_out = [model for model in table.models if model not in shown]
        for part, models in page_numbers(shown, MODELS_PER_PAGE):
            words = Words(TITLE + part.title, plain(precision), HOW)
            heading = matrix_heading(table, words, _entries(table, models, precision), left_out)
            panels = [_panel(table, model, precision, quantity) for model in models for quantity in UNITS]
            yield (
                f"batch_scaling_{file_part(precision)}{part.file}",
                draw_panels(panels, 4, SIZE, heading, _legend(table)),
            )


def _entries(table: MatrixTable, models: Sequence[MatrixModel], precision: str) -> Iterator[Entry]:
    """One entry per point: throughput and latency come from the same source."""
    for model in models:
        for name in table.platforms:
            for batch in table.batches:
                cell = model.cell(name, batch, precision)
                yield Entry((cell.latency or cell.throughput) if cell.runs else None, cell.source)


def _looks(table: MatrixTable) -> dict[str, Look]:
    colours, marks = hardware_colours(table.platforms), markers(table.platforms)
    return {name: Look(colours[name], marks[name]) for name in table.platforms}


def _legend(table: MatrixTable) -> list[LegendEntry]:
    platforms = [LegendEntry(plain(name), look.handle()) for name, look in _looks(table).items()]
    grey = Look(UNKNOWN_COLOUR, "o", "")
    measured = LegendEntry("measured", grey.handle())
    return [*platforms, measured, LegendEntry(NOT_MEASURED, grey.handle(solid=False))]


def _panel(table: MatrixTable, model: MatrixModel, precision: str, quantity: str) -> Panel:
    scale = LineScale("batch (samples)", f"{quantity} ({UNITS[quantity]})", [float(batch) for batch in table.batches])
    series = [
        Series(look, [_point(batch, model.cell(name, batch, precision), quantity) for batch in table.batches])
        for name, look in _looks(table).items()
    ]
    detail = f"{plain(model.family)} \u00b7 {quantity}"
    return Panel(plain(model.name), detail, partial(draw_lines, series=series, scale=scale))


def _point(batch: int, cell: MatrixCell, quantity: str) -> LinePoint:
    value = cell.throughput if quantity == "throughput" else cell.latency
    entry = Entry(value if cell.runs else None, cell.source)
    return LinePoint(float(batch), entry.value, entry.measured)
