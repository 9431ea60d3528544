"""What a lower precision gives: throughput and memory relative to fp32 on the same platform. Imported late."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.predictor.plots.drawing.chart import Chart, Side
from pytest_hfaccel.predictor.plots.drawing.chart_pages import chart_pages
from pytest_hfaccel.predictor.plots.drawing.entry import TIMES, Entry, memory_ratio, throughput_ratio
from pytest_hfaccel.predictor.plots.drawing.matrix_heading import Words
from pytest_hfaccel.predictor.plots.drawing.page import Page
from pytest_hfaccel.predictor.plots.drawing.style import category_colours
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.words import plain

PREFERRED = "fp32"
HOW = (
    "Throughput above 1 is faster, memory below 1 is smaller. The interval of a ratio holds every ratio of numbers in "
    "the two intervals; a ratio counts as measured when both numbers are."
)


def precision_impact(table: MatrixTable) -> Iterator[tuple[str, Page]]:
    """Draw one chart per extreme batch, relative to fp32 or else the first precision; none with only one precision."""
    base = PREFERRED if PREFERRED in table.precisions else table.precisions[0]
    others = [precision for precision in table.precisions if precision != base]
    for batch in table.extreme_batches if others else []:
        yield from _at_batch(table, batch, base, others)


def _at_batch(table: MatrixTable, batch: int, base: str, others: list[str]) -> Iterator[tuple[str, Page]]:
    # The columns are pairs; their names are looked up, for a platform's name may hold a space.
    pairs = {f"{platform} {precision}": (platform, precision) for platform in table.platforms for precision in others}

    def speed(model: MatrixModel, column: str) -> Entry:
        platform, precision = pairs[column]
        return throughput_ratio(model.cell(platform, batch, precision), model.cell(platform, batch, base))

    def memory(model: MatrixModel, column: str) -> Entry:
        platform, precision = pairs[column]
        return memory_ratio(model.cell(platform, batch, precision), model.cell(platform, batch, base))

    colours = category_colours(others)
    columns = {column: colours[precision] for column, (_, precision) in pairs.items()}
    sides = [
        Side("throughput", f"throughput / that at {plain(base)} ({TIMES})", speed),
        Side("peak memory", f"peak memory / that at {plain(base)} ({TIMES})", memory),
    ]
    words = Words(f"Precision impact: relative to {plain(base)} on the same platform", f"batch {batch}", HOW)
    yield from chart_pages(Chart(table, f"precision_impact_batch{batch}", words, columns, sides, baseline=1.0))
