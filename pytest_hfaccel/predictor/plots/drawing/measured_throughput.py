"""Measured throughput by device, precision and batch, at each sequence length. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from matplotlib.patches import Patch

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.drawing.group_bars import Bar, BarScale, Group, bars_size, draw_bars
from pytest_hfaccel.predictor.plots.drawing.measured_looks import length_name, measured_on
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import Panel, draw_panels, even_columns, page_numbers
from pytest_hfaccel.predictor.plots.drawing.style import ordered_colours
from pytest_hfaccel.predictor.plots.measured_runs import MeasuredRuns
from pytest_hfaccel.predictor.plots.words import compact, plain

PANELS_PER_PAGE = 15
SCALE = BarScale("throughput (samples/s)", thickness=0.13)
HOW = (
    "Samples per second at the median latency; whiskers: at the 95th and 5th percentile. Numbers beside the bars: "
    "smallest to largest. Of several runs of the same point, the median one is shown."
)


def throughput(runs: MeasuredRuns) -> Iterator[tuple[str, Page]]:
    """Draw the throughput, one panel per subject and length."""
    colours = dict(zip(runs.batches, ordered_colours(len(runs.batches)), strict=True))
    legend = [LegendEntry(f"batch {batch}", Patch(color=colour)) for batch, colour in colours.items()]
    drawn = [
        (subject.model, f"{subject.detail} \u00b7 {length_name(length)}", _groups(runs, at_length, colours))
        for subject, rows in runs.subjects.items()
        for length, at_length in _by_length(rows).items()
    ]
    size = bars_size([groups for _, _, groups in drawn], SCALE)
    for part, panels in page_numbers(drawn, PANELS_PER_PAGE):
        heading = Heading("Throughput by device, precision and batch" + part.title, measured_on(runs), HOW)
        shown = [
            Panel(plain(model), detail, partial(draw_bars, groups=groups, scale=SCALE, size=size))
            for model, detail, groups in panels
        ]
        yield "throughput" + part.file, draw_panels(shown, even_columns(len(shown), 3), size, heading, legend)


def _by_length(rows: list[Measurement]) -> dict[int, list[Measurement]]:
    lengths = sorted({row.length for row in rows})
    return {length: [row for row in rows if row.length == length] for length in lengths}


def _groups(runs: MeasuredRuns, rows: list[Measurement], colours: dict[int, str]) -> list[Group]:
    setups = sorted({runs.setup(row) for row in rows})
    return [_group(setup, [row for row in rows if runs.setup(row) == setup], colours) for setup in setups]


def _group(setup: str, rows: list[Measurement], colours: dict[int, str]) -> Group:
    chosen = {
        batch: _median_run([row for row in rows if row.batch == batch]) for batch in sorted({row.batch for row in rows})
    }
    values = {batch: _speed(row) for batch, row in chosen.items()}
    bars = [Bar(value, colours[batch], solid=True) for batch, value in values.items()]
    span = [compact(end(value.value for value in values.values())) for end in (min, max)]
    return Group(setup, bars, "\u2013".join(dict.fromkeys(span)))


def _median_run(rows: list[Measurement]) -> Measurement:
    return sorted(rows, key=lambda row: row.latency.median_ms)[len(rows) // 2]


def _speed(row: Measurement) -> Bounded:
    latency, samples = row.latency, 1e3 * row.batch
    return Bounded(row.samples_per_second, samples / latency.p95_ms, samples / latency.p5_ms)
