"""How many times as fast as the CPU each platform is, at the same batch and precision. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pytest_hfaccel.predictor.plots.drawing.chart import Chart, Side
from pytest_hfaccel.predictor.plots.drawing.chart_pages import chart_pages
from pytest_hfaccel.predictor.plots.drawing.entry import Entry, throughput_ratio
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words
from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.style import hardware_colours
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.words import file_part, plain

LABEL = "throughput / throughput of the CPU (\u00d7)"
TITLE = "Efficiency relative to the CPU: throughput at the same batch and precision"
HOW = (
    "The CPU is at 1. The interval of a ratio holds every ratio of numbers in the two intervals; a ratio counts as "
    "measured when both numbers are."
)


def efficiency(table: MatrixTable) -> Iterator[tuple[str, Page]]:
    """Draw one chart per precision; none when the matrix has no CPU."""
    cpu = table.baseline
    if cpu is None:
        return

    def entry(model: MatrixModel, platform: str, batch: int, precision: str) -> Entry:
        return throughput_ratio(model.cell(platform, batch, precision), model.cell(cpu, batch, precision))

    columns = {name: colour for name, colour in hardware_colours(table.platforms).items() if name != cpu}
    for precision in table.precisions:
        sides = [
            Side(f"batch {batch}", LABEL, partial(entry, batch=batch, precision=precision))
            for batch in table.extreme_batches
        ]
        name, words = f"efficiency_{file_part(precision)}", Words(TITLE, plain(precision), HOW)
        yield from chart_pages(Chart(table, name, words, columns, sides, baseline=1.0))
