"""How fast each model is on each platform, at the smallest and the largest batch. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pytest_hfaccel.predictor.plots.drawing.chart import Chart, Side
from pytest_hfaccel.predictor.plots.drawing.chart_pages import chart_pages
from pytest_hfaccel.predictor.plots.drawing.entry import Entry, throughput_of
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words
from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.style import hardware_colours
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.words import file_part, plain

LABEL = "throughput (samples/s)"
TITLE = "Hardware comparison: throughput of each model on each platform"


def hardware_comparison(table: MatrixTable) -> Iterator[tuple[str, Page]]:
    """Draw one chart per precision."""

    def entry(model: MatrixModel, platform: str, batch: int, precision: str) -> Entry:
        return throughput_of(model.cell(platform, batch, precision))

    for precision in table.precisions:
        sides = [
            Side(f"batch {batch}", LABEL, partial(entry, batch=batch, precision=precision))
            for batch in table.extreme_batches
        ]
        name, words = f"hardware_comparison_{file_part(precision)}", Words(TITLE, plain(precision))
        yield from chart_pages(Chart(table, name, words, hardware_colours(table.platforms), sides))
