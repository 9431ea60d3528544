"""Labels beside points that touch neither each other nor other points. Imported late."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes

from pytest_hfaccel.predictor.plots.drawing.measure import text_width
from pytest_hfaccel.predictor.plots.drawing.style import DPI

POINT_RADIUS = 0.045
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Box:
    """A rectangle, in inches."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The common area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """The area that is not in another box."""
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(other)


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], size: float, keep_clear: Sequence[Box] = ()
) -> list[Box]:
    """Write a label beside each point, at the nearest place that is free, with a line to it when it is not beside.

    Greedy, from the most crowded point to the loneliest. Where nothing is free, the place with the least overlap is
    taken.

    Args:
        axes: With their final limits.
        points: In data coordinates.
        texts: One per point; a point with an empty one keeps its place clear, but gets no label.
        size: Of the text, in points.
        keep_clear: Places that labels must not cover, in inches of the figure.

    Returns:
        The places of the labels.
    """
    pixels = axes.transData.transform(list(points))
    places = [(float(x) / DPI, float(y) / DPI) for x, y in pixels]
    window = axes.get_window_extent()
    frame = Box(window.x0 / DPI, window.y0 / DPI, window.x1 / DPI, window.y1 / DPI)
    taken = [*(_around(*place) for place in places), *_texts_of(axes), *keep_clear]
    labels = []
    for index in _crowded_first(places):
        if texts[index]:
            box = _best(places[index], texts[index], size, taken, frame)
            taken.append(box)
            labels.append(box)
            _write(axes, places[index], box, texts[index], size)
    return labels


def along(axes: Axes, line: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes along a line, in data coordinates, that is to be kept clear."""
    places = axes.transData.transform(list(line)) / DPI
    boxes = []
    for (x, y), (next_x, next_y) in pairwise((float(x), float(y)) for x, y in places):
        steps = max(1, int(math.dist((x, y), (next_x, next_y)) / POINT_RADIUS))
        boxes += [_around(x + (next_x - x) * i / steps, y + (next_y - y) * i / steps) for i in range(steps + 1)]
    return boxes


def _texts_of(axes: Axes) -> list[Box]:
    """The texts that stand in the axes already."""
    extents = [text.get_window_extent() for text in axes.texts]
    return [Box(one.x0 / DPI, one.y0 / DPI, one.x1 / DPI, one.y1 / DPI) for one in extents]


def _around(x: float, y: float) -> Box:
    return Box(x - POINT_RADIUS, y - POINT_RADIUS, x + POINT_RADIUS, y + POINT_RADIUS)


def _crowded_first(places: list[tuple[float, float]]) -> list[int]:
    def near(index: int) -> int:
        return sum(math.dist(places[index], other) < 0.5 for other in places)

    return sorted(range(len(places)), key=lambda index: (-near(index), index))


def _best(place: tuple[float, float], text: str, size: float, taken: list[Box], frame: Box) -> Box:
    best, least = None, math.inf
    for box in _candidates(place, text, size):
        cost = sum(box.overlap(other) for other in taken) + 10 * box.outside(frame)
        if cost < least - 1e-9:
            best, least = box, cost
        if cost < 1e-9:
            break
    assert best is not None  # noqa: S101 - there are always candidates
    return best


def _candidates(place: tuple[float, float], text: str, size: float) -> Iterator[Box]:
    width, height = text_width(text, size) + 0.03, size * 1.15 / POINTS_PER_INCH
    for distance in (0.07, 0.16, 0.26, 0.38, 0.52, 0.7, 0.9, 1.15):
        for step in range(16):
            angle = 2 * math.pi * step / 16
            # The box touches the circle of this radius with the side that faces the point.
            x = place[0] + math.cos(angle) * (distance + width / 2)
            y = place[1] + math.sin(angle) * (distance + height / 2)
            yield Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _write(axes: Axes, place: tuple[float, float], box: Box, text: str, size: float) -> None:
    centre = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    nearest = (min(max(place[0], box.left), box.right), min(max(place[1], box.bottom), box.top))
    inverse = axes.transData.inverted()
    if math.dist(place, nearest) > 0.12:
        ends = inverse.transform([(place[0] * DPI, place[1] * DPI), (nearest[0] * DPI, nearest[1] * DPI)])
        axes.plot(ends[:, 0], ends[:, 1], color="#888888", linewidth=0.6, zorder=2.5, scalex=False, scaley=False)
    x, y = inverse.transform((centre[0] * DPI, centre[1] * DPI))
    axes.text(x, y, text, size=size, ha="center", va="center", zorder=6)
