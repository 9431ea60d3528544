"""How all plots look, and the three panels they are made of: groups of bars, lines, heat maps. Imported late."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import matplotlib.style
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.plots.inputs import Bounded

# The "colorblind" palette of seaborn (after Okabe and Ito, "Color Universal Design", 2008), without its yellow and
# pink, which are too light for lines on white, and without its grey, which means "not known" here.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#333333")
_KINDS = ("cpu", "openvino", "cuda", "rocm", "mps", "webgpu", "webnn", "xpu")
_KIND_COLOURS = dict(zip(_KINDS, COLOURS, strict=True))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*", "p")
GREY, RED = "#8a8a8a", "#b00020"
FAINT = 0.45
"""Opacity of what was predicted beside what was measured."""
NOT_MEASURED = "predicted, or the source is not stated"

_SMALL = 7.0
_STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "xtick.labelsize": _SMALL,
    "ytick.labelsize": _SMALL,
    "lines.markersize": 5,
    # A model's name may hold a dollar sign; it is no formula.
    "text.parse_math": False,
    # Text stays text in SVG: it can be searched and read aloud. Random ids would make every file differ.
    "svg.fonttype": "none",
    "svg.hashsalt": "pytest-hfaccel",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says, and leave their settings as they were."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", seaborn.axes_style("whitegrid"), _STYLE]):
        # A name in a script that the font lacks is shown as boxes: no reason to fail where warnings are errors.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save(figure: Figure, path: Path) -> Path:
    """Write a figure; the same figure gives the same bytes.

    Raises:
        ConfigError: The file cannot be written.
    """
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(buffer, format=path.suffix.removeprefix("."), metadata=metadata)
    try:
        replace_file(path, buffer.getvalue())
    except OSError as error:
        raise ConfigError(f"{path}: the plot cannot be written: {error.strerror}") from error
    return path


# Words


def compact(number: float) -> str:
    """Three significant digits, from ten thousand on with a suffix: `0.0123`, `12.3`, `1,230`, `45k`, `6M`."""
    if 999.5 <= abs(number) < 9_995:
        return f"{float(f'{number:.3g}'):,.0f}"
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 has three significant digits only as 1M.
        if abs(number) >= 0.9995 * limit:
            return f"{_digits(number / limit)}{suffix}"
    return _digits(number)


def _digits(number: float) -> str:
    if number and abs(number) < 1e-3:
        return f"{number:.2e}"
    return f"{number:#.3g}".rstrip("0").rstrip(".") if number else "0"


def with_interval(number: Bounded, unit: str = "") -> str:
    """`120 (100-140)`, or `120` where there is no interval."""
    interval = "" if number.low is None else f" ({compact(number.bottom)}\u2013{compact(number.top)})"
    return f"{compact(number.value)}{unit}{interval}"


def plain(text: object, longest: int = 60) -> str:
    """A name as one line that a plot can show: no control characters, and nothing that hides it from a legend."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    if len(line) > longest:  # both ends stay: versions and sizes stand at the end of names
        line = f"{line[: longest - longest // 3 - 1]}\u2026{line[-(longest // 3) :]}"
    # matplotlib leaves labels that begin with an underscore out of legends.
    return f" {line}" if line.startswith("_") else line or "(no name)"


def file_part(text: str) -> str:
    """A name as a part of a file name: the same name always gives the same part, another name another one.

    Letters, digits, `.`, `-` and `_` stay, spaces become `_`. A name that loses something else gets the start of its
    SHA-256, so that `a/b` and `a:b` do not overwrite each other.
    """
    spaceless = re.sub(r"\s+", "_", text)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", spaceless).strip("._")[:60]
    return safe if safe and safe == spaceless else f"{safe or 'unnamed'}-{sha256(text.encode()).hexdigest()[:6]}"


# Colours and marks


def hardware_colours(platforms: Sequence[str]) -> dict[str, str]:
    """A colour for each platform or device: that of its kind for the first of a kind, else the next free one."""
    colours: dict[str, str] = {}
    for name in platforms:
        own = _KIND_COLOURS.get(name.partition(":")[0])
        if own and own not in colours.values():
            colours[name] = own
    for name in platforms:
        free = [colour for colour in COLOURS if colour not in colours.values()] or list(COLOURS)
        colours.setdefault(name, free[len(colours) % len(free)])
    return {name: colours[name] for name in platforms}


def cycle(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """Give each name one of the values, in their order, from the start again where there are more names."""
    return {name: values[index % len(values)] for index, name in enumerate(names)}


def ordered_colours(names: Sequence[str]) -> dict[str, str]:
    """Colours of ordered things (batches, lengths), light to dark: readable in grey, too."""
    palette = seaborn.color_palette("viridis_r", len(names) + 1).as_hex()
    return dict(zip(names, palette[1:], strict=True))


def mark(colour: str, marker: str = "o", *, solid: bool = True, line: Any = "") -> Line2D:
    """An entry of a legend: a filled mark is measured, an open one is not."""
    return Line2D([], [], color=colour, marker=marker, linestyle=line, markerfacecolor=colour if solid else "white")


# Figures

_Item = TypeVar("_Item")


def pages(name: str, title: str, items: Sequence[_Item], size: int) -> Iterator[tuple[str, str, Sequence[_Item]]]:
    """Split what a plot shows into pages; yields the page's file name, its title, and what it shows."""
    count = -(-len(items) // size)
    for page in range(count):
        part = items[page * size : (page + 1) * size]
        if count == 1:
            yield name, title, part
        else:
            yield f"{name}_page{page + 1}", f"{title} (page {page + 1} of {count})", part


@dataclass(frozen=True)
class Heading:
    """The words around the panels of a figure: a title, a line below it, and how to read the figure, at its foot."""

    title: str
    subtitle: str
    caption: str


def panels(
    count: int, columns: int, size: tuple[float, float], heading: Heading, legend: Mapping[str, Any]
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of panels.

    Returns:
        The figure and its panels, row by row.
    """
    rows, columns = -(-count // columns), min(columns, count)
    width = max(size[0] * columns + (2.2 if legend else 0.0), 6.0)
    caption = textwrap.fill(heading.caption, int(width * 16))
    subtitle = textwrap.fill(heading.subtitle, int(width * 15))
    words = 0.5 + 0.13 * (caption.count("\n") + subtitle.count("\n") + 2)
    figure = Figure(figsize=(width, size[1] * rows + words), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(f"{heading.title}\n{subtitle}", x=0.01, ha="left", fontsize=9.5)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=_SMALL, color="#555555")
    if legend:
        figure.legend(list(legend.values()), list(legend), loc="outside right upper", frameon=False, fontsize=_SMALL)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def panel_title(axes: Axes, title: str, detail: str) -> None:
    """Head a panel."""
    axes.set_title(f"{plain(title, 44)}\n{detail}", loc="left", fontsize=8.0)


@dataclass(frozen=True)
class Bar:
    """One bar."""

    value: Bounded | None
    colour: str
    measured: bool


@dataclass(frozen=True)
class Group:
    """Bars that belong together, with one label and one note.

    Attributes:
        label: Left of the bars.
        bars: From top to bottom.
        note: Right of the bars: the numbers, or why there are none.
        warn: Whether the note is red.
        limit: Where a dashed line ends what the device has.
    """

    label: str
    bars: Sequence[Bar]
    note: str
    warn: bool = False
    limit: float | None = None


def draw_bars(axes: Axes, groups: Sequence[Group], label: str, baseline: float | None = None) -> None:
    """Draw groups of horizontal bars, from a baseline on a logarithmic axis, from zero on a linear one without."""
    start = baseline or 0.0
    for at, group in enumerate(groups):
        height = 0.8 / len(group.bars)
        for index, bar in enumerate(group.bars):
            if bar.value is None:
                continue
            y = at - 0.4 + height * (index + 0.5)
            opacity = 1.0 if bar.measured else FAINT
            axes.barh(y, bar.value.value - start, height * 0.9, left=start, color=bar.colour, alpha=opacity)
            if bar.value.low is not None:
                axes.hlines(y, bar.value.bottom, bar.value.top, color="#333333", linewidth=1.0)
        colour = RED if group.warn else "#333333" if any(bar.value for bar in group.bars) else GREY
        beside = axes.get_yaxis_transform()
        axes.text(1.02, at, group.note, transform=beside, va="center", color=colour, fontsize=_SMALL)
        if group.limit is not None and _is_near(group):
            axes.vlines(group.limit, at - 0.45, at + 0.45, color=RED, linestyle=(0, (3, 2)), linewidth=1.6)
    axes.set_yticks(range(len(groups)), [group.label for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    if baseline is not None:
        axes.set_xscale("log")
        axes.axvline(baseline, color="#333333", linewidth=0.8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: compact(number)))


def _is_near(group: Group) -> bool:
    """A limit far beyond the bars would squeeze them; it stands in the note."""
    return any(bar.value and group.limit and group.limit <= 2 * bar.value.top for bar in group.bars)


@dataclass(frozen=True)
class Line:
    """One line."""

    points: Mapping[float, Bounded | None]
    colour: str
    marker: str
    style: str = "-"
    open_at: frozenset[float] = frozenset()


def draw_lines(axes: Axes, lines: Sequence[Line], x_label: str, y_label: str, *, log_y: bool = True) -> None:
    """Draw lines with their intervals, on a logarithmic x axis with a tick for each point."""
    for line in lines:
        for run in _unbroken(line.points):
            xs, ys = list(run), list(run.values())
            face = ["white" if x in line.open_at else line.colour for x in xs]
            axes.plot(xs, [y.value for y in ys], line.style, color=line.colour)
            axes.scatter(xs, [y.value for y in ys], 22, face, marker=line.marker, edgecolors=line.colour, zorder=3)
            if any(y.low is not None for y in ys):
                lows, highs = [y.bottom for y in ys], [y.top for y in ys]
                axes.fill_between(xs, lows, highs, color=line.colour, alpha=0.12, linewidth=0)
                axes.vlines(xs, lows, highs, color=line.colour, linewidth=0.9)
    shown = sorted({x for line in lines for x in line.points})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(shown[0] / 1.3, shown[-1] * 1.3)
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def plain_ticks(*axes: Axis) -> None:
    """Write numbers at major ticks as everywhere else, and nothing at minor ones."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda number, _: compact(number)))
        axis.set_minor_formatter(NullFormatter())


def _unbroken(points: Mapping[float, Bounded | None]) -> list[dict[float, Bounded]]:
    runs: list[dict[float, Bounded]] = [{}]
    for x, y in sorted(points.items()):
        if y is None:
            runs.append({})
        else:
            runs[-1][x] = y
    return [run for run in runs if run]


@dataclass(frozen=True)
class HeatCell:
    """One cell of a heat map: the number that colours it (grey without one), its text, and whether it is framed red."""

    value: float | None
    text: str
    framed: bool = False


def draw_heat_map(
    axes: Axes,
    cells: Sequence[Sequence[HeatCell]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    scale: tuple[float, float],
    *,
    ratio: bool = False,
    bar_label: str = "",
) -> None:
    """Draw a heat map on logarithmic colours that the colour-blind can read.

    An empty row of cells is a heading. `scale` has the smallest and the greatest number of all maps that share their
    colours, which have two sides, at 1, for a `ratio`. Without a `bar_label` there is no colour bar.
    """
    import numpy as np

    empty = HeatCell(None, "")
    filled = [list(row) or [empty] * len(columns) for row in cells]
    numbers = np.array([[np.nan if cell.value is None else cell.value for cell in row] for row in filled], dtype=float)
    low, high = scale[0], max(scale[1], scale[0] * 1.05)
    if ratio:
        far = max(high, 1 / low, 1.05)
        low, high = 1 / far, far
    seaborn.heatmap(
        numbers,
        ax=axes,
        norm=LogNorm(low, high),
        cmap="PuOr" if ratio else "YlGnBu",
        annot=np.array([[cell.text for cell in row] for row in filled]),
        fmt="",
        mask=np.zeros_like(numbers, dtype=bool),
        annot_kws={"fontsize": _SMALL},
        cbar=bool(bar_label),
        cbar_kws={"label": bar_label, "format": FuncFormatter(lambda number, _: compact(number))} if bar_label else {},
        xticklabels=columns,
        yticklabels=rows,
        linewidths=0.5,
    )
    for at, row in enumerate(filled):
        for column, cell in enumerate(row):
            if cell.value is None and cell.text:
                colour = RED if cell.framed else GREY
                axes.text(column + 0.5, at + 0.5, cell.text, ha="center", va="center", color=colour, fontsize=_SMALL)
            if cell.framed:
                axes.add_patch(Rectangle((column, at), 1, 1, fill=False, edgecolor=RED, linewidth=1.5, zorder=4))
    axes.set_title(title, loc="left")
    axes.tick_params(axis="y", rotation=0)
    axes.grid(visible=False)


def swatch(colour: str, opacity: float = 1.0) -> Patch:
    """An entry of a legend for bars."""
    return Patch(color=colour, alpha=opacity, linewidth=0)
