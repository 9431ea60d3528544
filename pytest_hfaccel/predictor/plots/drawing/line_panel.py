"""Lines over batch sizes on logarithmic axes, with intervals, broken where nothing is known. Imported late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.drawing.panel_grid import PanelSize, label_axes
from pytest_hfaccel.predictor.plots.drawing.scales import category_axis, linear_axis, log_axis
from pytest_hfaccel.predictor.plots.drawing.style import UNKNOWN_COLOUR

LineStyle = Literal["-", "--", "-.", ":", ""]

SIZE = PanelSize(width=2.3, height=1.65, left=0.62)
LEVEL_STYLE = (0, (1, 1.5))


@dataclass(frozen=True)
class LinePoint:
    """A point of a line: `x`, the number, and whether it was measured (a filled mark) or predicted (an open one)."""

    x: float
    value: Bounded | None
    solid: bool


@dataclass(frozen=True)
class Look:
    """How a line looks."""

    colour: str
    marker: str
    style: LineStyle = "-"

    def handle(self, *, solid: bool = True) -> Line2D:
        """The line's mark in a legend."""
        face = self.colour if solid else "white"
        return Line2D([], [], color=self.colour, marker=self.marker, linestyle=self.style, markerfacecolor=face)


@dataclass(frozen=True)
class Series:
    """A line: its look and its points, ascending in `x`."""

    look: Look
    points: list[LinePoint]


@dataclass(frozen=True)
class LineScale:
    """What the axes show.

    Attributes:
        x_label: With its unit.
        y_label: Likewise.
        x_ticks: The places at which there are points.
        from_zero: Whether the y axis is linear, from zero, instead of logarithmic.
        levels: Numbers that are drawn as dotted lines across the panel.
    """

    x_label: str
    y_label: str
    x_ticks: list[float]
    from_zero: bool = False
    levels: tuple[float, ...] = ()


def draw_lines(axes: Axes, series: Sequence[Series], scale: LineScale, size: PanelSize = SIZE) -> None:
    """Draw lines; a panel without any point says so."""
    values = [point.value for line in series for point in line.points if point.value]
    category_axis(axes, scale.x_ticks, size.width)
    _set_y(axes, values, scale, size)
    for level in scale.levels:
        axes.axhline(level, color=UNKNOWN_COLOUR, linestyle=LEVEL_STYLE, linewidth=1.2, zorder=1.5)
    for line in series:
        for part in _unbroken(line.points):
            _draw_part(axes, part, line.look)
    label_axes(axes, scale.x_label, scale.y_label)


def _set_y(axes: Axes, values: list[Bounded], scale: LineScale, size: PanelSize) -> None:
    top = max((value.top for value in values), default=1.0)
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", color=UNKNOWN_COLOUR)
    elif scale.from_zero:
        linear_axis(axes, "y", 0.0, 1.08 * max(top, *scale.levels, 0.0), size.height)
    else:
        log_axis(axes, "y", min(value.bottom or value.value for value in values), top, size.height)


def _unbroken(points: list[LinePoint]) -> list[list[tuple[LinePoint, Bounded]]]:
    parts: list[list[tuple[LinePoint, Bounded]]] = [[]]
    for point in points:
        if point.value is None:
            parts.append([])
        else:
            parts[-1].append((point, point.value))
    return [part for part in parts if part]


def _draw_part(axes: Axes, part: list[tuple[LinePoint, Bounded]], look: Look) -> None:
    places, values = [point.x for point, _ in part], [value for _, value in part]
    axes.plot(places, [value.value for value in values], color=look.colour, linestyle=look.style, zorder=3)
    if any(value.low is not None for value in values):
        bottoms, tops = [value.bottom for value in values], [value.top for value in values]
        axes.fill_between(places, bottoms, tops, color=look.colour, alpha=0.13, linewidth=0)
        axes.vlines(places, bottoms, tops, color=look.colour, linewidth=0.9, zorder=2)
    for solid, face in ((True, look.colour), (False, "white")):
        shown = [(point.x, value.value) for point, value in part if point.solid is solid]
        if shown:
            axes.plot(*zip(*shown, strict=True), look.marker, color=look.colour, markerfacecolor=face, zorder=4)
