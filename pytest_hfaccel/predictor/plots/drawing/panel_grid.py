"""Small multiples: many panels of one size, in rows and pages. Imported late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes

from pytest_hfaccel.predictor.plots.drawing.measure import shorten, text_width
from pytest_hfaccel.predictor.plots.drawing.page import MARGIN, Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.style import DPI, PANEL_TITLE, SMALL, TEXT

TITLE_ROOM = 0.45
GAP = 0.18
BASE = 0.09
NARROWEST_PAGE = 6.0

Item = TypeVar("Item")


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What it is about, e.g. the model: in bold.
        detail: A second line, e.g. the batch.
        draw: Draws it on axes.
    """

    title: str
    detail: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class PanelSize:
    """The size of all panels of a figure, in inches.

    Attributes:
        width: Of the axes.
        height: Of the axes.
        left: For tick labels and the label of the y axis.
        right: For notes beside the axes.
        bottom: For tick labels and the label of the x axis.
    """

    width: float
    height: float
    left: float
    right: float = 0.12
    bottom: float = 0.45

    @property
    def outer_width(self) -> float:
        """With everything around the axes."""
        return self.left + self.width + self.right

    @property
    def outer_height(self) -> float:
        """With everything around the axes."""
        return TITLE_ROOM + self.height + self.bottom


def even_columns(count: int, most: int) -> int:
    """So many columns, at most, that the rows are of even length: four panels stand better in two than in three."""
    rows = -(-count // most)
    return -(-count // rows)


def draw_panels(
    panels: Sequence[Panel], columns: int, size: PanelSize, heading: Heading, legend: Sequence[LegendEntry] = ()
) -> Page:
    """Draw panels row by row on one page."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = columns * size.outer_width + (columns - 1) * GAP
    page_width = max(NARROWEST_PAGE, width + 2 * MARGIN)
    page = Page(heading, page_width, rows * size.outer_height, legend)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left = MARGIN + column * (size.outer_width + GAP)
        axes = page.axes(left + size.left, row * size.outer_height + TITLE_ROOM, size.width, size.height)
        panel.draw(axes)
        _title(axes, panel, size)
    return page


def _title(axes: Axes, panel: Panel, size: PanelSize) -> None:
    # From the panel's outer edge: long names need the room of the tick labels, too.
    left = -size.left / size.width
    room = size.outer_width
    title = shorten(panel.title, room, PANEL_TITLE, "bold")
    lines = 1 + bool(panel.detail)
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "left", "va": "baseline"}
    axes.text(left, 1 + (BASE + 0.15 * (lines - 1)) / size.height, title, size=PANEL_TITLE, weight="bold", **place)
    if panel.detail:
        detail = shorten(panel.detail, room, TEXT)
        axes.text(left, 1 + BASE / size.height, detail, size=TEXT, color="#444444", **place)


def label_axes(axes: Axes, x: str, y: str = "") -> None:
    """Write what the axes show, with units; a label that is longer than its axis is set smaller."""
    window = axes.get_window_extent()
    axes.set_xlabel(x, size=_fitting(x, window.width / DPI), labelpad=2)
    if y:
        axes.set_ylabel(y, size=_fitting(y, window.height / DPI), labelpad=3)


def _fitting(text: str, inches: float) -> float:
    return min(TEXT, max(SMALL - 1, TEXT * inches / text_width(text, TEXT)))


@dataclass(frozen=True)
class PageNumber:
    """What a page adds to the title and to the file's name; nothing where there is only one page."""

    title: str = ""
    file: str = ""


def page_numbers(items: Sequence[Item], per_page: int) -> Iterator[tuple[PageNumber, Sequence[Item]]]:
    """Split into pages of even length."""
    count = -(-len(items) // per_page)
    length = -(-len(items) // count) if count else 0
    for page in range(count):
        number = PageNumber(f", page {page + 1} of {count}", f"_page{page + 1}") if count > 1 else PageNumber()
        yield number, items[page * length : (page + 1) * length]
