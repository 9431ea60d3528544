"""The five kinds of plots of a prediction matrix. Imported late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

from pytest_hfaccel.core.prediction import INTERVAL
from pytest_hfaccel.plots.inputs import Bounded, MatrixCell, MatrixModel, MatrixTable, is_measured
from pytest_hfaccel.plots.style import (
    COLOURS,
    FAINT,
    GREY,
    MARKERS,
    NOT_MEASURED,
    RED,
    Bar,
    Group,
    Heading,
    HeatCell,
    Line,
    compact,
    cycle,
    draw_bars,
    draw_heat_map,
    draw_lines,
    file_part,
    hardware_colours,
    mark,
    ordered_colours,
    pages,
    panel_title,
    panels,
    plain,
    swatch,
    with_interval,
)

_FEW = 12
"""Up to so many models have a panel each; more of them become the rows of heat maps."""
_HEAT_ROWS, _HEAT_COLUMNS = 40, 18
_NAMED = 8
"""So many models without a number are named."""
_RATIO = (
    "The interval of a ratio covers every ratio of numbers from the two intervals; a ratio counts as measured when "
    "both numbers are."
)


@dataclass(frozen=True)
class _Entry:
    """A number as it is drawn, its source, and whether the model fits the device as far as is known."""

    value: Bounded | None
    source: str = ""
    fits: bool = True
    unit: str = ""

    @property
    def text(self) -> str:
        if self.value is None:
            return "not known" if self.fits else "does not fit"
        return with_interval(self.value, self.unit)

    @property
    def bar(self) -> partial[Bar]:
        return partial(Bar, self.value, measured=is_measured(self.source))


@dataclass(frozen=True)
class _Chart:
    """What a chart shows: for each model and side a number in every column.

    Attributes:
        name: Of its file.
        title: Of the figure.
        facts: At which precision or batch.
        how: How to read it.
        columns: Names of the bars (of the columns of the heat map), with their colours.
        sides: Panels per model: title, label with unit, and the number of a model in a column.
        baseline: Where bars begin and colours change sides: 1 for ratios.
    """

    name: str
    title: str
    facts: str
    how: str
    columns: Mapping[str, str]
    sides: Sequence[tuple[str, str, Callable[[MatrixModel, str], _Entry]]]
    baseline: float | None = None

    def entries(self, models: Iterable[MatrixModel]) -> list[_Entry]:
        return [entry(m, column) for m in models for _, _, entry in self.sides for column in self.columns]

    def shown(self, table: MatrixTable) -> list[MatrixModel]:
        """The models that have a number in it; the others are only named in the caption."""
        return [model for model in table.models if any(entry.value for entry in self.entries([model]))]


def figures(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    """Draw all kinds of plots of a matrix; yields the names of their files, without suffix."""
    for kind in (_hardware_comparison, _batch_scaling, _efficiency, _memory, _precision_impact):
        yield from kind(table)


def _hardware_comparison(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    def speed(model: MatrixModel, platform: str, batch: int, precision: str) -> _Entry:
        cell = model.cell(platform, batch, precision)
        return _Entry(cell.throughput if cell.runs else None, cell.source, cell.runs)

    for precision in table.precisions:
        sides = [
            (f"batch {batch}", "throughput (samples/s)", partial(speed, batch=batch, precision=precision))
            for batch in table.extreme_batches
        ]
        name, title = f"hardware_comparison_{file_part(precision)}", "Hardware comparison: throughput on each platform"
        yield from _draw(table, _Chart(name, title, precision, "", hardware_colours(table.platforms), sides))


def _efficiency(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    cpu = table.cpu
    columns = {name: colour for name, colour in hardware_colours(table.platforms).items() if name != cpu}
    if cpu is None or not columns:
        return

    def speed(model: MatrixModel, platform: str, batch: int, precision: str) -> _Entry:
        return _speed_ratio(model.cell(platform, batch, precision), model.cell(cpu, batch, precision))

    title = "Efficiency: throughput relative to the CPU, at the same batch and precision"
    label = "throughput / throughput of the CPU (\u00d7)"
    for precision in table.precisions:
        sides = [
            (f"batch {batch}", label, partial(speed, batch=batch, precision=precision))
            for batch in table.extreme_batches
        ]
        name = f"efficiency_{file_part(precision)}"
        yield from _draw(table, _Chart(name, title, precision, f"The CPU is at 1. {_RATIO}", columns, sides, 1.0))


def _precision_impact(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    base = "fp32" if "fp32" in table.precisions else table.precisions[0]
    others = [precision for precision in table.precisions if precision != base]
    # The columns are pairs; their names are looked up, for a platform's name may hold a space.
    pairs = {f"{platform} {precision}": (platform, precision) for platform in table.platforms for precision in others}
    colours = cycle(others, COLOURS)

    def ratio(model: MatrixModel, column: str, batch: int, of: Callable[[MatrixCell, MatrixCell], _Entry]) -> _Entry:
        platform, precision = pairs[column]
        return of(model.cell(platform, batch, precision), model.cell(platform, batch, base))

    for batch in table.extreme_batches if others else []:
        sides = [
            (
                "throughput",
                f"throughput / that at {plain(base)} (\u00d7)",
                partial(ratio, batch=batch, of=_speed_ratio),
            ),
            (
                "peak memory",
                f"peak memory / that at {plain(base)} (\u00d7)",
                partial(ratio, batch=batch, of=_memory_ratio),
            ),
        ]
        title = f"Precision impact: relative to {plain(base)} on the same platform"
        how = f"Throughput above 1 is faster, memory below 1 is smaller. {_RATIO}"
        columns = {column: colours[precision] for column, (_, precision) in pairs.items()}
        name = f"precision_impact_batch{batch}"
        yield from _draw(table, _Chart(name, title, f"batch {batch}", how, columns, sides, 1.0))


def _speed_ratio(cell: MatrixCell, base: MatrixCell) -> _Entry:
    if not (cell.throughput and base.throughput and cell.runs and base.runs):
        return _Entry(None, fits=cell.runs)
    return _Entry(cell.throughput.over(base.throughput), _both(cell.source, base.source), unit="\u00d7")


def _memory_ratio(cell: MatrixCell, base: MatrixCell) -> _Entry:
    if not (cell.memory and base.memory):
        return _Entry(None)
    return _Entry(cell.memory.over(base.memory), _both(cell.memory_source, base.memory_source), unit="\u00d7")


def _both(source: str, base: str) -> str:
    return source if source == base else " over ".join(name or "not stated" for name in (source, base))


def _memory(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    for precision in table.precisions:
        cells = [cell for m in table.models for (_, _, found), cell in m.cells.items() if found == precision]
        values = [cell.memory.value for cell in cells if cell.memory]
        unit, factor = ("MiB", 1.0) if max(values, default=0.0) < 9_995 else ("GiB", 1 / 1024)
        sizes = {name: size * factor for name, size in table.device_memory.items() if name in table.platforms}

        def entry(
            model: MatrixModel, platform: str, batch: int, precision: str = precision, factor: float = factor
        ) -> _Entry:
            cell, limit = model.cell(platform, batch, precision), table.device_memory.get(platform)
            fits = cell.runs and not (cell.fits is None and cell.memory and limit and cell.memory.value > limit)
            return _Entry(cell.memory.times(factor) if cell.memory else None, cell.memory_source, fits)

        known = ", ".join(f"{plain(name)} {compact(size)} {unit}" for name, size in sizes.items())
        how = "Red: does not fit the device." + (f" Devices have: {known}." if known else "")
        label = f"peak memory ({unit})"
        sides = [(f"batch {batch}", label, partial(entry, batch=batch)) for batch in table.batches]
        name, title = f"memory_{file_part(precision)}", "Peak memory of each model on each platform"
        chart = _Chart(name, title, precision, how, hardware_colours(table.platforms), sides)
        if len(chart.shown(table)) > _FEW:
            extreme = [side for side in sides if side[0] in {f"batch {batch}" for batch in table.extreme_batches}]
            yield from _heat_maps(table, replace(chart, sides=extreme))
        elif values:
            yield from _memory_bars(table, chart, unit, sizes)


def _memory_bars(
    table: MatrixTable, chart: _Chart, unit: str, sizes: Mapping[str, float]
) -> Iterator[tuple[str, Figure]]:
    models = chart.shown(table)
    colours = ordered_colours([side[0] for side in chart.sides])
    legend: dict[str, Any] = {title: swatch(colour) for title, colour in colours.items()}
    if sizes:
        legend["memory of the device, where it is near"] = mark(RED, "", line="--")
    height = 0.7 + 0.13 * len(chart.columns) * max(len(chart.sides), 2)
    figure, axes = panels(len(models), 3, (4.2, height), _heading(table, chart, models), legend)
    for panel, model in zip(axes, models, strict=True):
        groups = []
        for column in chart.columns:
            entries = [entry(model, column) for _, _, entry in chart.sides]
            values = [entry.value.value for entry in entries if entry.value]
            fits = all(entry.fits for entry in entries)
            note = "\u2013".join(dict.fromkeys([compact(min(values)), compact(max(values))])) if values else ""
            of = f" of {compact(sizes[column])}" if column in sizes else ""
            text = f"{note}{of} {unit}" if values else entries[0].text if fits else "does not fit"
            bars = [entry.bar(colour=colour) for entry, colour in zip(entries, colours.values(), strict=True)]
            groups.append(Group(plain(column), bars, text, warn=not fits, limit=sizes.get(column)))
        draw_bars(panel, groups, chart.sides[0][1])
        panel_title(panel, model.name, plain(model.family))
    yield chart.name, figure


def _batch_scaling(table: MatrixTable) -> Iterator[tuple[str, Figure]]:
    colours, markers = hardware_colours(table.platforms), cycle(table.platforms, MARKERS)
    legend: dict[str, Any] = {plain(name): mark(colours[name], markers[name], line="-") for name in table.platforms}
    legend |= {"measured": mark(GREY), NOT_MEASURED: mark(GREY, solid=False)}

    def lines(model: MatrixModel, precision: str, quantity: str) -> Iterator[Line]:
        for platform in table.platforms:
            cells = {float(batch): model.cell(platform, batch, precision) for batch in table.batches}
            points = {batch: getattr(cell, quantity) if cell.runs else None for batch, cell in cells.items()}
            not_measured = frozenset(batch for batch, cell in cells.items() if not is_measured(cell.source))
            yield Line(points, colours[platform], markers[platform], open_at=not_measured)

    for precision in table.precisions if len(table.batches) > 1 else []:

        def entry(model: MatrixModel, platform: str, batch: int, precision: str = precision) -> _Entry:
            cell = model.cell(platform, batch, precision)
            return _Entry((cell.latency or cell.throughput) if cell.runs else None, cell.source)

        sides = [("", "", partial(entry, batch=batch)) for batch in table.batches]
        how = "Logarithmic axes. Lines end where the model does not fit or nothing is known."
        title = "Batch scaling: throughput and latency by batch size"
        chart = _Chart(f"batch_scaling_{file_part(precision)}", title, precision, how, colours, sides)
        for name, page_title, models in pages(chart.name, title, chart.shown(table), _FEW):
            heading = replace(_heading(table, chart, models), title=page_title)
            figure, axes = panels(2 * len(models), 4, (3.0, 2.4), heading, legend)
            for at, model in enumerate(models):
                for panel, quantity, unit in zip(
                    axes[2 * at :], ("throughput", "latency"), ("samples/s", "ms"), strict=False
                ):
                    drawn = list(lines(model, precision, quantity))
                    draw_lines(panel, drawn, "batch (samples)", f"{quantity} ({unit})")
                    panel_title(panel, model.name, f"{plain(model.family)} \u00b7 {quantity}")
            yield name, figure


def _draw(table: MatrixTable, chart: _Chart) -> Iterator[tuple[str, Figure]]:
    """Draw a chart: bars for few models, heat maps for many, nothing where it has no number."""
    models = chart.shown(table)
    if len(models) > _FEW:
        yield from _heat_maps(table, chart)
    elif models:
        legend = {"measured": swatch(GREY), NOT_MEASURED: swatch(GREY, FAINT)}
        size = (4.4, 0.9 + 0.24 * len(chart.columns))
        figure, axes = panels(
            len(models) * len(chart.sides), len(chart.sides), size, _heading(table, chart, models), legend
        )
        drawn = iter(axes)
        for model in models:
            for title, label, entry_of in chart.sides:
                panel, groups = next(drawn), []
                for column, colour in chart.columns.items():
                    entry = entry_of(model, column)
                    groups.append(Group(plain(column), [entry.bar(colour=colour)], entry.text, warn=not entry.fits))
                draw_bars(panel, groups, label, chart.baseline)
                panel_title(panel, model.name, f"{plain(model.family)} \u00b7 {title}")
        yield chart.name, figure


def _heat_maps(table: MatrixTable, chart: _Chart) -> Iterator[tuple[str, Figure]]:
    """Draw one row per model and one map per side, side by side as long as the figure can be read."""
    if len(chart.sides) > 1 and len(chart.sides) * len(chart.columns) > _HEAT_COLUMNS:
        for alone in chart.sides:
            part = replace(chart, name=f"{chart.name}_{file_part(alone[0])}", sides=[alone])
            yield from _heat_maps(table, part)
        return
    shown = chart.shown(table)
    values = [entry.value.value for entry in chart.entries(shown) if entry.value]
    # One scale for all pages: the same colour is the same number.
    scale, ratio = (min(values, default=1.0), max(values, default=1.0)), chart.baseline is not None
    bar_label = " or ".join(dict.fromkeys(label for _, label, _ in chart.sides))
    columns = [plain(column) for column in chart.columns]
    for name, title, models in pages(chart.name, chart.title, shown, _HEAT_ROWS) if values else []:
        heading = _heading(table, chart, models)
        caption = f"\u25cf measured, others predicted or of unstated source. {heading.caption}"
        rows: list[tuple[str, MatrixModel | None]] = []
        for family, members in groupby(models, key=lambda model: model.family):
            rows += [(plain(family).upper(), None), *((plain(model.name, 40), model) for model in members)]
        size = (1.4 + 1.0 * len(columns), 1.0 + 0.32 * len(rows))
        heading = replace(heading, title=title, caption=caption)
        figure, axes = panels(len(chart.sides), len(chart.sides), size, heading, {})
        for at, (panel, (side, _, entry)) in enumerate(zip(axes, chart.sides, strict=True)):
            cells = [[_heat_cell(entry(model, c)) for c in chart.columns] if model else [] for _, model in rows]
            labels = [label for label, _ in rows] if at == 0 else [""] * len(rows)
            last = bar_label if at == len(axes) - 1 else ""
            draw_heat_map(panel, cells, labels, columns, side, scale, ratio=ratio, bar_label=last)
        yield name, figure


def _heat_cell(entry: _Entry) -> HeatCell:
    dot = "\u25cf " if entry.value and is_measured(entry.source) else ""
    text = dot + entry.text.replace(" (", "\n(")
    return HeatCell(entry.value.value if entry.value else None, text, framed=not entry.fits)


def _heading(table: MatrixTable, chart: _Chart, models: Sequence[MatrixModel]) -> Heading:
    """The words of a figure that shows some models: where the numbers come from, and which models have none."""
    shown = [entry for entry in chart.entries(models) if entry.value]
    bounded = any(entry.value and entry.value.low is not None for entry in shown)
    interval = f"Intervals are meant to hold {INTERVAL:.0%} of measured values." if bounded else "No intervals stated."
    counts = Counter(entry.source or "of a source that the matrix does not state" for entry in shown)
    numbers = ", ".join(f"{count:,} {source}" for source, count in sorted(counts.items(), key=lambda i: (-i[1], i[0])))
    with_numbers = chart.shown(table)
    missing = [plain(model.name) for model in table.models if model not in with_numbers]
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    left_out = f"Without a number here: {', '.join(missing[:_NAMED])}{more}." if missing else ""
    names = table.device_names
    chips = "; ".join(f"{plain(n)}: {plain(names[n])}" for n in table.platforms if names.get(n, n) != n)
    date = f"matrix of {plain(table.timestamp)}" if table.timestamp else ""
    subtitle = " \u00b7 ".join(filter(None, (plain(chart.facts), plain(table.mode), date, chips)))
    return Heading(
        chart.title, subtitle, " ".join(filter(None, (chart.how, interval, f"Numbers: {numbers}.", left_out)))
    )
