"""The roofline of a device, with models on it. Imported late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pytest_hfaccel.predictor.plots.drawing.label_placement import along, place_labels
from pytest_hfaccel.predictor.plots.drawing.line_panel import Look
from pytest_hfaccel.predictor.plots.drawing.measure import shorten
from pytest_hfaccel.predictor.plots.drawing.page import MARGIN, Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import label_axes
from pytest_hfaccel.predictor.plots.drawing.scales import log_axis
from pytest_hfaccel.predictor.plots.drawing.style import (
    SMALL,
    UNKNOWN_COLOUR,
    category_colours,
    markers,
)
from pytest_hfaccel.predictor.plots.matrix_table import is_measured
from pytest_hfaccel.predictor.plots.roofline_points import Roof, RooflinePoint
from pytest_hfaccel.predictor.plots.words import NOT_MEASURED, compact, counted, file_part, plain, with_unit

NAMED = 12
"""Up to so many points carry their model's name; more are numbered, with a list beside."""
WIDTH, HEIGHT, LEFT, BOTTOM = 6.6, 4.6, 0.75, 0.5
LIST_WIDTH, LIST_LINE = 2.7, 0.155
LIST_ROWS = int((HEIGHT + BOTTOM) / LIST_LINE)


def roofline_chart(points: list[RooflinePoint], roof: Roof, roof_source: str) -> Iterator[tuple[str, Page]]:
    """Draw one page."""
    points = sorted(points, key=lambda point: (point.family, point.model, point.intensity))
    names = list(dict.fromkeys(point.model for point in points))
    named = len(points) <= NAMED
    columns = 0 if named else -(-len(names) // LIST_ROWS)
    width = LEFT + WIDTH + 0.2 + columns * LIST_WIDTH + MARGIN
    page = Page(_heading(points, roof, roof_source), width, HEIGHT + BOTTOM, _legend(points))
    axes = page.axes(LEFT, 0.05, WIDTH, HEIGHT)
    _draw_roof(axes, points, roof)
    _draw_points(axes, points)
    labels = {name: shorten(plain(name), 2.2, SMALL) if named else str(names.index(name) + 1) for name in names}
    places = [(point.intensity, point.speed) for point in points]
    place_labels(axes, places, [labels[point.model] for point in points], SMALL, along(axes, _roof_line(axes, roof)))
    if not named:
        _list(page, points, names)
    yield f"roofline_{file_part(roof.device)}", page


def _heading(points: list[RooflinePoint], roof: Roof, source: str) -> Heading:
    roof_text = f"peak {with_unit(roof.peak, 'FLOP/s')}, {with_unit(roof.bandwidth, 'B/s')}"
    origin = plain(source) if source else "source of the roof not stated"
    sources = Counter(point.source or "of a source that is not stated" for point in points)
    caption = f"{_reached(points, roof)} Points: {counted(dict(sources))}."
    return Heading(f"Roofline of {plain(roof.device)}", f"{roof_text} \u00b7 {origin}", caption)


def _reached(points: list[RooflinePoint], roof: Roof) -> str:
    shares = [point.speed / roof.at(point.intensity) for point in points]
    above = sum(share > 1 for share in shares)
    text = f"Share of the roof that is reached: median {median(shares):.0%}"
    text += f", from {min(shares):.0%} to {max(shares):.0%}." if len(shares) > 1 else "."
    if above:
        text += f" {above} above the roof: operations or bytes are over-counted, or the roof is too low."
    return text


def _families(points: Sequence[RooflinePoint]) -> list[str]:
    return sorted({point.family for point in points})


def _looks(points: Sequence[RooflinePoint]) -> dict[str, tuple[str, str]]:
    families = _families(points)
    colours, marks = category_colours(families), markers(families)
    return {family: (colours[family], marks[family]) for family in families}


def _legend(points: Sequence[RooflinePoint]) -> list[LegendEntry]:
    entries = [
        LegendEntry(plain(family), Line2D([], [], color=colour, marker=mark, linestyle=""))
        for family, (colour, mark) in _looks(points).items()
        if family
    ]
    measured = {is_measured(point.source) for point in points}
    grey = Look(UNKNOWN_COLOUR, "o", "")
    words = {True: "measured", False: NOT_MEASURED}
    return [
        *entries,
        *(LegendEntry(words[solid], grey.handle(solid=solid)) for solid in sorted(measured, reverse=True)),
    ]


def _draw_roof(axes: Axes, points: Sequence[RooflinePoint], roof: Roof) -> None:
    intensities = [roof.ridge, *(point.intensity for point in points)]
    left, right = min(intensities) / 2.5, max(intensities) * 2.5
    speeds = [roof.peak, roof.at(left), *(point.speed for point in points)]
    log_axis(axes, "x", left, right, WIDTH, room=0.0)
    log_axis(axes, "y", min(speeds), max(speeds), HEIGHT, room=0.3)
    axes.plot(*zip(*_roof_line(axes, roof), strict=True), color="#333333", linewidth=2, zorder=2)
    bottom = axes.get_ylim()[0]
    axes.vlines(roof.ridge, bottom, roof.peak, color=UNKNOWN_COLOUR, linewidth=1, linestyle=":")
    near: dict[str, Any] = {"textcoords": "offset points", "size": SMALL, "color": "#333333"}
    axes.annotate(f"ridge at {compact(roof.ridge)} FLOP/byte", (roof.ridge, bottom), (3, 4), **near)
    axes.annotate(f"peak {with_unit(roof.peak, 'FLOP/s')}", (right, roof.peak), (-4, 4), ha="right", **near)
    label_axes(axes, "operational intensity (FLOP per byte moved)", "performance (FLOP/s)")


def _roof_line(axes: Axes, roof: Roof) -> list[tuple[float, float]]:
    left, right = axes.get_xlim()
    return [(left, roof.at(left)), (roof.ridge, roof.peak), (right, roof.peak)]


def _draw_points(axes: Axes, points: Sequence[RooflinePoint]) -> None:
    looks = _looks(points)
    for point in points:
        colour, mark = looks[point.family]
        face = colour if is_measured(point.source) else "white"
        axes.plot(point.intensity, point.speed, mark, color=colour, markerfacecolor=face, zorder=4)


def _list(page: Page, points: Sequence[RooflinePoint], names: Sequence[str]) -> None:
    """The names of numbered models, in columns beside the axes, in the colours of their families."""
    looks = _looks(points)
    colours = {point.model: looks[point.family][0] for point in points}
    columns = -(-len(names) // LIST_ROWS)
    axes = page.axes(LEFT + WIDTH + 0.2, 0.05, columns * LIST_WIDTH, HEIGHT + BOTTOM - 0.05)
    axes.set_axis_off()
    axes.set_xlim(0, columns * LIST_WIDTH)
    axes.set_ylim(LIST_ROWS, 0)
    for index, name in enumerate(names):
        column, row = divmod(index, LIST_ROWS)
        left, text = column * LIST_WIDTH, shorten(plain(name), LIST_WIDTH - 0.42, SMALL)
        number: dict[str, Any] = {"ha": "right", "weight": "bold", "color": colours[name]}
        axes.text(left + 0.24, row + 0.5, str(index + 1), size=SMALL, va="center", **number)
        axes.text(left + 0.3, row + 0.5, text, size=SMALL, va="center")
