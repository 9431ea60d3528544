"""Horizontal bars in named groups, with intervals, limits and a column of numbers beside them. Imported late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.drawing.measure import widest
from pytest_hfaccel.predictor.plots.drawing.panel_grid import PanelSize, label_axes
from pytest_hfaccel.predictor.plots.drawing.scales import linear_axis, log_axis
from pytest_hfaccel.predictor.plots.drawing.style import FAINT, SMALL, WARNING_COLOUR

GROUP_GAP = 0.1
LIMIT_STYLE = (0, (3, 1))
AXIS_ROOM = 0.05
NEAR = 1.6
"""A limit up to so many times the longest bar is drawn."""


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        value: Its length, with the interval drawn as a whisker; `None` leaves its place empty.
        colour: Its colour.
        solid: Whether the number was measured; what was predicted is drawn faint.
    """

    value: Bounded | None
    colour: str
    solid: bool


@dataclass(frozen=True)
class Group:
    """Bars with one label.

    Attributes:
        label: At the axis.
        bars: From top to bottom.
        note: Beside the axes: the numbers, or why there are none.
        limit: A line across the group, e.g. the device's memory.
        warn: Whether the note is a warning.
    """

    label: str
    bars: list[Bar]
    note: str
    limit: float | None = None
    warn: bool = False


@dataclass(frozen=True)
class BarScale:
    """The axis along the bars.

    Attributes:
        label: What it shows, with its unit.
        baseline: `None` for bars from zero on a linear axis; else bars start here, on a logarithmic one.
        thickness: Of one bar, in inches.
    """

    label: str
    baseline: float | None = None
    thickness: float = 0.17


def bars_size(groups: Sequence[Sequence[Group]], scale: BarScale, width: float = 2.3) -> PanelSize:
    """The size that suits all panels of a figure; each has a list of groups."""
    height = max(sum(_height(group, scale) for group in panel) for panel in groups)
    return PanelSize(
        width=width,
        height=height + AXIS_ROOM,
        left=0.12 + widest([group.label for panel in groups for group in panel], SMALL),
        right=0.14 + widest([group.note for panel in groups for group in panel], SMALL),
    )


def draw_bars(axes: Axes, groups: Sequence[Group], scale: BarScale, size: PanelSize) -> None:
    """Draw the groups from top to bottom; the y axis is in inches."""
    _set_axis(axes, groups, scale, size)
    top = AXIS_ROOM / 2
    centres: list[float] = []
    bars: list[tuple[float, Bar, Bounded]] = []
    for group in groups:
        height = _height(group, scale)
        first = top + (GROUP_GAP + scale.thickness) / 2
        bars += [(first + index * scale.thickness, bar, bar.value) for index, bar in enumerate(group.bars) if bar.value]
        _draw_limit(axes, group, top + 0.02, top + height - 0.02)
        centres.append(top + height / 2)
        top += height
    _draw_bars(axes, bars, scale)
    axes.set_ylim(size.height, 0)
    axes.set_yticks(centres, [group.label for group in groups])
    axes.tick_params(axis="y", length=0, pad=3)
    axes.grid(visible=False, axis="y")
    for group, centre in zip(groups, centres, strict=True):
        _note(axes, group, centre, size)
    if bars:
        label_axes(axes, scale.label)
    else:
        # Nothing is known, as the notes say: ticks would only pretend a range.
        axes.set_xticks([])


def _height(group: Group, scale: BarScale) -> float:
    return max(1, len(group.bars)) * scale.thickness + GROUP_GAP


def _set_axis(axes: Axes, groups: Sequence[Group], scale: BarScale, size: PanelSize) -> None:
    values = [bar.value for group in groups for bar in group.bars if bar.value]
    if scale.baseline is not None:
        ends = [scale.baseline, *(value.bottom for value in values), *(value.top for value in values)]
        log_axis(axes, "x", min(end for end in ends if end > 0), max(ends), size.width)
        axes.axvline(scale.baseline, color="#555555", linewidth=1, zorder=1)
        return
    longest = max((value.top for value in values), default=1.0)
    # A limit far away would press the bars together; it stands in the note then.
    limits = [group.limit for group in groups if group.limit and group.limit <= NEAR * longest and _has_bar(group)]
    linear_axis(axes, "x", 0.0, 1.05 * max([longest, *limits]), size.width)


def _draw_bars(axes: Axes, bars: Sequence[tuple[float, Bar, Bounded]], scale: BarScale) -> None:
    """Draw bars at heights, all at once: matplotlib takes its time for every call."""
    if not bars:
        return
    start = scale.baseline or 0.0
    faces = [to_rgba(bar.colour, 1.0 if bar.solid else FAINT) for _, bar, _ in bars]
    axes.barh(
        [y for y, _, _ in bars],
        [value.value - start for _, _, value in bars],
        scale.thickness * 0.86,
        start,
        color=faces,
        edgecolor=[bar.colour for _, bar, _ in bars],
        linewidth=0.8,
        zorder=2,
    )
    bounded = [(y, value.bottom, value.top) for y, _, value in bars if value.low is not None]
    if bounded:
        _whiskers(axes, *zip(*bounded, strict=True))


def _whiskers(axes: Axes, heights: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> None:
    lows = [max(low, axes.get_xlim()[0]) for low in lows]
    axes.hlines(heights, lows, highs, color="#222222", linewidth=1.1, zorder=3)
    axes.plot([*lows, *highs], [*heights, *heights], "|", color="#222222", markersize=4, markeredgewidth=1, zorder=3)


def _has_bar(group: Group) -> bool:
    return any(bar.value for bar in group.bars)


def _draw_limit(axes: Axes, group: Group, top: float, bottom: float) -> None:
    if group.limit and group.limit <= axes.get_xlim()[1] and _has_bar(group):
        axes.vlines(group.limit, top, bottom, color=WARNING_COLOUR, linewidth=1.6, linestyle=LIMIT_STYLE, zorder=4)


def _note(axes: Axes, group: Group, centre: float, size: PanelSize) -> None:
    axes.text(
        1 + 0.06 / size.width,
        1 - centre / size.height,
        group.note,
        transform=axes.transAxes,
        size=SMALL,
        va="center",
        color=WARNING_COLOUR if group.warn else "#222222",
    )
