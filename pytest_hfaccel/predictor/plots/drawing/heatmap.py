"""Heat maps with numbers in them: one row per model, under the name of its family. Imported late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.drawing.measure import shorten, widest
from pytest_hfaccel.predictor.plots.drawing.page import MARGIN, Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.scales import NARROWEST, log_axis
from pytest_hfaccel.predictor.plots.drawing.style import PANEL_TITLE, SMALL, TEXT, WARNING_COLOUR

ROW, CELL, NAME, GAP, HEAD = 0.3, 0.8, 2.6, 0.25, 0.5
# Black and white have the same contrast on colours of a relative luminance of 0.18 (WCAG 2.2, "contrast ratio"); small
# white text is easier to read than that formula says.
LIGHT = 0.24
_FRAME: dict[str, Any] = {"fill": False, "color": WARNING_COLOUR, "linewidth": 1.5, "zorder": 4}
BAR_GAP, BAR_WIDTH, BAR_LABELS = 0.2, 0.16, 0.75


@dataclass(frozen=True)
class HeatCell:
    """One cell.

    Attributes:
        value: What colours it; `None` leaves it grey.
        text: What stands in it, at most two lines.
        framed: Whether it has a red frame: it does not fit.
    """

    value: Bounded | None
    text: str
    framed: bool = False


@dataclass(frozen=True)
class HeatRow:
    """One row; without cells it is the heading of the rows below."""

    label: str
    cells: list[list[HeatCell]]
    """For each map of the figure, for each of its columns."""


@dataclass(frozen=True)
class HeatScale:
    """The colours.

    Attributes:
        label: What they show, with the unit.
        low: The smallest number.
        high: The greatest.
        middle: Where colours change sides, e.g. 1 for ratios; `None` for numbers without a middle.
    """

    label: str
    low: float
    high: float
    middle: float | None = None

    @property
    def colours(self) -> str:
        """The name in matplotlib of a map that the colour-blind can read, dark for much."""
        return "YlGnBu" if self.middle is None else "PuOr"

    @property
    def norm(self) -> LogNorm:
        """From numbers to colours, logarithmic: platforms differ by factors."""
        if self.middle is None:
            return LogNorm(self.low, max(self.high, NARROWEST * self.low))
        far = max(self.high / self.middle, self.middle / self.low, NARROWEST)
        return LogNorm(self.middle / far, self.middle * far)


def draw_heat_maps(
    rows: Sequence[HeatRow],
    titles: Sequence[str],
    columns: Sequence[str],
    scale: HeatScale,
    heading: Heading,
    legend: Sequence[LegendEntry] = (),
) -> Page:
    """Draw maps side by side: the same rows and columns, one map per title."""
    cell = max(CELL, 0.16 + widest([*columns, *(one.text for one in _cells(rows))], SMALL))
    wide, high = cell * len(columns), ROW * len(rows)
    width = NAME + (wide + GAP) * len(titles) + BAR_GAP + BAR_WIDTH + BAR_LABELS + MARGIN
    page = Page(heading, width, HEAD + high + 0.1, legend)
    for index, title in enumerate(titles):
        axes = page.axes(NAME + index * (wide + GAP), HEAD, wide, high)
        _draw_map(axes, [row.cells[index] if row.cells else [] for row in rows], len(columns), scale)
        _label(axes, title, columns, high)
        _row_labels(axes, rows if index == 0 else [])
    bar = page.axes(width - MARGIN - BAR_LABELS - BAR_WIDTH, HEAD, BAR_WIDTH, min(high, 4.0))
    _colour_bar(bar, scale, min(high, 4.0))
    return page


def _cells(rows: Sequence[HeatRow]) -> list[HeatCell]:
    return [cell for row in rows for part in row.cells for cell in part]


def _draw_map(axes: Axes, rows: list[list[HeatCell]], columns: int, scale: HeatScale) -> None:
    # Not seaborn's heat map: it draws the whole figure once more for each map, to turn labels that we have measured.
    values = np.full((len(rows), columns), np.nan)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            if cell.value:
                values[y, x] = cell.value.value
            if cell.framed:
                axes.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, **_FRAME))
    mesh = axes.pcolormesh(values, cmap=scale.colours, norm=scale.norm, edgecolors="white", linewidth=0.8)
    axes.set_xlim(0, columns)
    axes.set_ylim(len(rows), 0)
    colours = mesh.to_rgba(values)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            _write(axes, x, y, cell, colours[y, x])


def _write(axes: Axes, x: int, y: int, cell: HeatCell, colour: Any) -> None:
    """The text of a cell, in black or white, whichever can be read; a grey cell where there is no number."""
    seaborn: Any = import_module("seaborn.utils")
    if cell.value is None:
        axes.add_patch(Rectangle((x + 0.01, y + 0.03), 0.98, 0.94, facecolor="#efefef", edgecolor="none"))
    dark = cell.value is not None and seaborn.relative_luminance(colour) < LIGHT
    ink = "white" if dark else "#222222" if cell.value else "#555555"
    axes.text(x + 0.5, y + 0.5, cell.text, size=SMALL, ha="center", va="center", color=ink, linespacing=1.0)


def _label(axes: Axes, title: str, columns: Sequence[str], high: float) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([index + 0.5 for index in range(len(columns))], list(columns), rotation=0)
    axes.xaxis.tick_top()
    axes.tick_params(axis="both", length=0, pad=2)
    axes.set_yticks([])
    axes.text(0, 1 + 0.32 / high, title, transform=axes.transAxes, size=PANEL_TITLE, weight="bold", va="baseline")


def _row_labels(axes: Axes, rows: Sequence[HeatRow]) -> None:
    if not rows:
        return
    room = NAME - MARGIN - 0.1
    names = [shorten(row.label, room, SMALL, "normal" if row.cells else "bold") for row in rows]
    labels = axes.set_yticks([index + 0.5 for index in range(len(rows))], names, rotation=0)
    for row, label in zip(rows, labels, strict=True):
        if not row.cells:
            label.label1.set_fontweight("bold")


def _colour_bar(axes: Axes, scale: HeatScale, inches: float) -> None:
    norm = scale.norm
    low, high = float(norm.vmin or 1), float(norm.vmax or 1)
    steps = np.geomspace(low, high, 129)
    axes.pcolormesh([0, 1], steps, np.sqrt(steps[1:] * steps[:-1])[:, None], cmap=scale.colours, norm=norm)
    log_axis(axes, "y", low, high, inches, room=0.0)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(scale.label, size=TEXT)
