"""Latency, memory, throughput and noise of measured points. Imported late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.plots.inputs import Bounded
from pytest_hfaccel.plots.style import (
    COLOURS,
    GREY,
    MARKERS,
    RED,
    Bar,
    Group,
    Heading,
    Line,
    compact,
    cycle,
    draw_bars,
    draw_lines,
    hardware_colours,
    mark,
    ordered_colours,
    pages,
    panel_title,
    panels,
    plain,
    swatch,
)

_LINE_STYLES = ("-", "--", "-.", ":")
_PER_PAGE = 12
_BYTES_PER_MIB, _BYTES_PER_GIB = 2**20, 2**30
_FOUR_DIGITS = 9_995


class _Setups:
    """What rows were measured on, in words, and how each of them looks in every plot.

    Attributes:
        names: All of them.
        colours: The colour of the hardware, where every device was measured in one way; else one per way.
        markers: One per name.
    """

    def __init__(self, rows: Sequence[Measurement]) -> None:
        self._rows = rows
        threads = {(row.device, row.threads) for row in rows}
        self._with_threads = {device for device, count in Counter(device for device, _ in threads).items() if count > 1}
        devices = {self.of(row): row.device for row in rows}
        self.names = sorted(devices)
        self.markers = cycle(self.names, MARKERS)
        hardware = hardware_colours(sorted(devices.values()))
        is_one_way = len(set(devices.values())) == len(devices)
        self.colours = {n: hardware[devices[n]] for n in self.names} if is_one_way else cycle(self.names, COLOURS)

    def of(self, row: Measurement) -> str:
        """Device and precision, with threads or emulation where that matters."""
        precision = row.dtype if row.effective_dtype in ("", row.dtype) else f"{row.dtype} (ran {row.effective_dtype})"
        threads = f"{row.threads} threads" if row.device in self._with_threads else ""
        emulated = row.implementation if row.implementation != "real" else ""
        return plain(", ".join(filter(None, (f"{row.device} {precision}", threads, emulated))))

    @property
    def subtitle(self) -> str:
        """How many points, and the chip behind each device."""
        chips = sorted({(row.device, row.device_name) for row in self._rows if row.device_name})
        named = "; ".join(f"{plain(device)}: {plain(name)}" for device, name in chips)
        return " \u00b7 ".join(filter(None, (f"measured points: {len(self._rows):,}", named)))


def figures(rows: list[Measurement]) -> Iterator[tuple[str, Figure]]:
    """Draw all kinds of plots of measurements; yields the names of their files, without suffix."""
    yield from _latency(rows)
    yield from _memory([row for row in rows if row.memory_bytes])
    yield from _throughput(rows)
    yield from _noise(rows)


def _latency(rows: list[Measurement]) -> Iterator[tuple[str, Figure]]:
    def read(row: Measurement) -> Bounded:
        return Bounded(row.latency.median_ms, row.latency.p5_ms, row.latency.p95_ms)

    how = "Marks: median of a forward pass (a training step); bars and bands: 5th to 95th percentile of the timed runs."
    heading = Heading("Latency by batch and sequence length", _Setups(rows).subtitle, how)
    yield from _lines("latency", heading, rows, "latency (ms)", read)


def _memory(rows: list[Measurement]) -> Iterator[tuple[str, Figure]]:
    if not rows:
        return
    large = max(row.memory_bytes or 0 for row in rows) >= _FOUR_DIGITS * _BYTES_PER_MIB
    unit, size = ("GiB", _BYTES_PER_GIB) if large else ("MiB", _BYTES_PER_MIB)
    sources = "; ".join(sorted({plain(row.memory_source) for row in rows if row.memory_source}))
    how = "What the model added to the memory of its device, at the peak. Dashed: weights as loaded."
    how += f" Read from: {sources}." if sources else ""
    heading = Heading("Peak memory by batch and sequence length", _Setups(rows).subtitle, how)

    def read(row: Measurement) -> Bounded:
        return Bounded((row.memory_bytes or 0) / size)

    def weights(row: Measurement) -> float:
        return row.weight_bytes / size

    yield from _lines("measured_memory", heading, rows, f"peak memory ({unit})", read, weights)


def _lines(
    file: str,
    heading: Heading,
    rows: list[Measurement],
    label: str,
    read: Callable[[Measurement], Bounded],
    level: Callable[[Measurement], float] | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Draw a quantity over the batches: a panel per model, a line per setup and sequence length."""
    setups, lengths = _Setups(rows), sorted({row.length for row in rows})
    styles = cycle([str(length) for length in lengths], _LINE_STYLES)
    legend: dict[str, Any] = {name: mark(setups.colours[name], setups.markers[name]) for name in setups.names}
    legend |= {_length_name(length): mark(GREY, "", line=styles[str(length)]) for length in lengths}
    for name, title, subjects in pages(file, heading.title, list(_subjects(rows).items()), _PER_PAGE):
        page_heading = Heading(title, heading.subtitle, heading.caption)
        figure, axes = panels(len(subjects), 3, (3.4, 2.8), page_heading, legend)
        for panel, ((model, detail), of_subject) in zip(axes, subjects, strict=True):
            drawn = []
            for setup in setups.names:
                for length in lengths:
                    points = [row for row in of_subject if setups.of(row) == setup and row.length == length]
                    line = {float(batch): _middle([read(row) for row in at]) for batch, at in _by_batch(points).items()}
                    drawn.append(Line(line, setups.colours[setup], setups.markers[setup], styles[str(length)]))
            draw_lines(panel, drawn, "batch (samples)", label, log_y=level is None)
            for height in {level(row) for row in of_subject if level(row)} if level else ():
                panel.axhline(height, color=GREY, linestyle=(0, (4, 2)), linewidth=1.2)
            panel_title(panel, model, detail)
        yield name, figure


def _throughput(rows: list[Measurement]) -> Iterator[tuple[str, Figure]]:
    setups = _Setups(rows)
    colours = ordered_colours([str(batch) for batch in sorted({row.batch for row in rows})])
    legend = {f"batch {batch}": swatch(colour) for batch, colour in colours.items()}
    title = "Throughput by device, precision and batch"
    how = (
        "Samples per second at the median latency; whiskers: at the 95th and 5th percentile. Numbers beside the bars: "
        "smallest to largest. Of several runs of the same point, the median one is shown."
    )
    shown = [
        (model, f"{detail} \u00b7 {_length_name(length)}", [row for row in of_subject if row.length == length])
        for (model, detail), of_subject in _subjects(rows).items()
        for length in sorted({row.length for row in of_subject})
    ]
    height = 0.8 + 0.12 * len(setups.names) * max(len(colours), 2)
    for name, page_title, parts in pages("throughput", title, shown, _PER_PAGE):
        figure, axes = panels(len(parts), 3, (4.2, height), Heading(page_title, setups.subtitle, how), legend)
        for panel, (model, detail, of_panel) in zip(axes, parts, strict=True):
            groups = []
            for setup in sorted({setups.of(row) for row in of_panel}):
                by_batch = _by_batch([row for row in of_panel if setups.of(row) == setup])
                chosen = {
                    b: sorted(at, key=lambda row: row.latency.median_ms)[len(at) // 2] for b, at in by_batch.items()
                }
                bars = [Bar(_speed(row), colours[str(batch)], measured=True) for batch, row in chosen.items()]
                speeds = [row.samples_per_second for row in chosen.values()]
                note = "\u2013".join(dict.fromkeys([compact(min(speeds)), compact(max(speeds))]))
                groups.append(Group(setup, bars, note))
            draw_bars(panel, groups, "throughput (samples/s)")
            panel_title(panel, model, detail)
        yield name, figure


def _speed(row: Measurement) -> Bounded:
    samples = 1e3 * row.batch
    return Bounded(row.samples_per_second, samples / row.latency.p95_ms, samples / row.latency.p5_ms)


def _noise(rows: list[Measurement]) -> Iterator[tuple[str, Figure]]:
    setups = _Setups(rows)
    legend: dict[str, Any] = {name: mark(setups.colours[name], setups.markers[name]) for name in setups.names}
    if any(row.noise.throttled for row in rows):
        legend["throttled during the runs"] = mark(RED, solid=False)
    how = (
        "One mark per measured point. Spread: distance between the quartiles of the timed runs. Uncertainty: half the "
        "95 % interval of the median. Drift: how much slower a fixed piece of work was after the measurement than "
        "before; its own spread is that between its quartiles."
    )
    figure, axes = panels(3, 3, (3.8, 3.2), Heading("Noise of the measurements", setups.subtitle, how), legend)
    medians = [row.latency.median_ms for row in rows]
    spread = [100 * row.latency.iqr_ms / row.latency.median_ms for row in rows]
    error = [100 * row.latency.relative_error for row in rows]
    fixed, drift = [100 * row.noise.iqr_share for row in rows], [100 * row.noise.drift for row in rows]
    median_label = "median latency (ms)"
    _scatter(axes[0], rows, medians, spread, median_label, "quartile distance / median (%)")
    _scatter(axes[1], rows, medians, error, median_label, "relative error of the median (%)")
    _scatter(axes[2], rows, fixed, drift, "spread of the fixed work (%)", "drift (%)")
    for panel, title, detail in zip(
        axes,
        ("Spread of the latency", "Uncertainty of the median", "Drift of the machine"),
        ("of the timed runs", "what the repetitions reached", "work that is always the same"),
        strict=True,
    ):
        panel_title(panel, title, detail)
    for panel in axes[:2]:
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
    far = 1.15 * max(1.0, *(abs(each) for each in drift))
    axes[2].set_ylim(-far, far)
    axes[2].axhline(0, color=GREY, linewidth=1)
    yield "noise", figure


def _scatter(axes: Axes, rows: list[Measurement], xs: list[float], ys: list[float], x_label: str, y_label: str) -> None:
    setups = _Setups(rows)
    for setup in setups.names:
        shown = [index for index, row in enumerate(rows) if setups.of(row) == setup]
        places = [xs[index] for index in shown], [ys[index] for index in shown]
        axes.scatter(*places, 24, setups.colours[setup], marker=setups.markers[setup], alpha=0.75, linewidths=0)
    throttled = [index for index, row in enumerate(rows) if row.noise.throttled]
    axes.scatter([xs[i] for i in throttled], [ys[i] for i in throttled], 80, "none", marker="o", edgecolors=RED)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _subjects(rows: list[Measurement]) -> dict[tuple[str, str], list[Measurement]]:
    """The rows of each panel, by its title and the line below: model, family, weights and mode."""
    subjects: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        detail = " \u00b7 ".join(plain(part) for part in (row.family, f"{row.weights} weights", row.mode) if part)
        subjects.setdefault((row.model, detail), []).append(row)
    return subjects


def _by_batch(rows: list[Measurement]) -> dict[int, list[Measurement]]:
    batches = sorted({row.batch for row in rows})
    return {batch: [row for row in rows if row.batch == batch] for batch in batches}


def _middle(values: list[Bounded]) -> Bounded:
    """The median of several runs, with the outermost ends of their intervals."""
    middle = median(value.value for value in values)
    if all(value.low is None for value in values):
        return Bounded(middle)
    return Bounded(middle, min(value.bottom for value in values), max(value.top for value in values))


def _length_name(length: int) -> str:
    return f"{length} tokens" if length else "no text input"
