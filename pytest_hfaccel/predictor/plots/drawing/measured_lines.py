"""Measured latency and memory by batch and sequence length. Imported late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from matplotlib.lines import Line2D

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.drawing.line_panel import LEVEL_STYLE, LinePoint, LineScale, Series, draw_lines
from pytest_hfaccel.predictor.plots.drawing.measured_looks import line_legend, line_looks, measured_on
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import (
    Panel,
    PanelSize,
    draw_panels,
    even_columns,
    page_numbers,
)
from pytest_hfaccel.predictor.plots.drawing.style import UNKNOWN_COLOUR
from pytest_hfaccel.predictor.plots.measured_runs import MeasuredRuns
from pytest_hfaccel.predictor.plots.memory_unit import memory_unit
from pytest_hfaccel.predictor.plots.words import plain

SIZE = PanelSize(width=2.9, height=2.0, left=0.62)
PANELS_PER_PAGE = 12
BYTES_PER_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Quantity:
    """What is drawn over the batches.

    Attributes:
        name: Of the file.
        heading: The words.
        scale: The axes.
        read: The number of a row.
        level: A number of a row that is drawn as a line across the panel, e.g. the size of the weights.
    """

    name: str
    heading: Heading
    scale: LineScale
    read: Callable[[Measurement], Bounded]
    level: Callable[[Measurement], float] | None = None


def latency(runs: MeasuredRuns) -> Iterator[tuple[str, Page]]:
    """Draw the latency, one panel per subject."""

    def read(row: Measurement) -> Bounded:
        return Bounded(row.latency.median_ms, row.latency.p5_ms, row.latency.p95_ms)

    how = "Marks: median of a forward pass (a training step); bars and bands: 5th to 95th percentile of the timed runs."
    heading = Heading("Latency by batch and sequence length", measured_on(runs), how)
    scale = LineScale("batch (samples)", "latency (ms)", [float(batch) for batch in runs.batches])
    yield from _pages(Quantity("latency", heading, scale, read), runs)


def measured_memory(runs: MeasuredRuns) -> Iterator[tuple[str, Page]]:
    """Draw the peak memory, one panel per subject of which it is known."""
    known = MeasuredRuns([row for row in runs.rows if row.memory_bytes])
    if not known.rows:
        return
    unit = memory_unit((row.memory_bytes or 0) / BYTES_PER_MEBIBYTE for row in known.rows)
    factor = unit.per_mebibyte / BYTES_PER_MEBIBYTE

    def read(row: Measurement) -> Bounded:
        return Bounded((row.memory_bytes or 0) * factor)

    def weights(row: Measurement) -> float:
        return row.weight_bytes * factor

    scale = LineScale("batch (samples)", f"peak memory ({unit.name})", [float(batch) for batch in known.batches])
    heading = Heading("Peak memory by batch and sequence length", measured_on(known), _memory_sources(known))
    yield from _pages(Quantity("measured_memory", heading, replace(scale, from_zero=True), read, weights), known)


def _memory_sources(runs: MeasuredRuns) -> str:
    sources = sorted({plain(row.memory_source) for row in runs.rows if row.memory_source})
    how = "What the model added to the memory of its device, at the peak."
    return f"{how} Read from: {'; '.join(sources)}." if sources else how


def _pages(quantity: Quantity, runs: MeasuredRuns) -> Iterator[tuple[str, Page]]:
    legend = line_legend(runs)
    if quantity.level:
        line = Line2D([], [], color=UNKNOWN_COLOUR, linestyle=LEVEL_STYLE, linewidth=1.2)
        legend.append(LegendEntry("weights as loaded", line))
    for part, subjects in page_numbers(list(runs.subjects.items()), PANELS_PER_PAGE):
        heading = replace(quantity.heading, title=quantity.heading.title + part.title)
        panels = [_panel(quantity, runs, plain(subject.model), subject.detail, rows) for subject, rows in subjects]
        yield quantity.name + part.file, draw_panels(panels, even_columns(len(panels), 3), SIZE, heading, legend)


def _panel(quantity: Quantity, runs: MeasuredRuns, title: str, detail: str, rows: list[Measurement]) -> Panel:
    levels = {quantity.level(row) for row in rows} if quantity.level else set()
    scale = replace(quantity.scale, levels=tuple(sorted(level for level in levels if level)))
    return Panel(title, detail, partial(draw_lines, series=_series(quantity, runs, rows), scale=scale, size=SIZE))


def _series(quantity: Quantity, runs: MeasuredRuns, rows: list[Measurement]) -> list[Series]:
    grouped: dict[tuple[str, int], dict[int, list[Bounded]]] = {}
    for row in rows:
        batches = grouped.setdefault((runs.setup(row), row.length), {})
        batches.setdefault(row.batch, []).append(quantity.read(row))
    looks = line_looks(runs)
    return [Series(looks[key], _points(batches)) for key, batches in grouped.items()]


def _points(by_batch: dict[int, list[Bounded]]) -> list[LinePoint]:
    return [LinePoint(float(batch), _middle(values), solid=True) for batch, values in sorted(by_batch.items())]


def _middle(values: list[Bounded]) -> Bounded:
    """The median of several runs, with the outermost ends of their intervals."""
    lows = [value.low for value in values if value.low is not None]
    highs = [value.high for value in values if value.high is not None]
    return Bounded(median(value.value for value in values), min(lows, default=None), max(highs, default=None))
