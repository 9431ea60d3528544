"""A figure with a heading, a body of panels placed in inches, a legend and a caption. Imported late.

Everything has a place in inches that is computed from the width of its text, so that nothing overlaps and nothing is
cut, and the same input gives the same file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots.drawing.measure import widest, wrap
from pytest_hfaccel.predictor.plots.drawing.style import DPI, TEXT, TITLE

MARGIN = 0.15
TITLE_LINE, TEXT_LINE = 0.26, 0.16
LEGEND_LINE, LEGEND_HANDLE = 0.2, 0.55


@dataclass(frozen=True)
class Heading:
    """The words of a figure.

    Attributes:
        title: What is shown.
        subtitle: On what: device, precision, mode, date.
        caption: How to read it, and where the numbers come from.
    """

    title: str
    subtitle: str
    caption: str


@dataclass(frozen=True)
class LegendEntry:
    """A mark and what it means."""

    label: str
    handle: Artist


class Page:
    """A figure whose size follows from its contents.

    Args:
        heading: Its words.
        width: Inches.
        body: Height of the panels' area in inches.
        legend: Marks that are explained below the panels.
    """

    def __init__(self, heading: Heading, width: float, body: float, legend: Sequence[LegendEntry] = ()) -> None:
        inner = width - 2 * MARGIN
        title = wrap(heading.title, inner, TITLE, "bold")
        subtitle, caption = (wrap(text, inner, TEXT) for text in (heading.subtitle, heading.caption))
        columns, rows = _legend_shape(legend, inner)
        self._top = MARGIN + TITLE_LINE * len(title) + TEXT_LINE * len(subtitle) + 0.04
        foot = MARGIN + TEXT_LINE * len(caption) + (LEGEND_LINE * rows + 0.12 if rows else 0.0) + 0.08
        self.width, self.height = width, self._top + body + foot
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self._lines(title, MARGIN, TITLE_LINE, TITLE, "bold")
        self._lines(subtitle, MARGIN + TITLE_LINE * len(title), TEXT_LINE, TEXT, "normal", "#444444")
        self._lines(caption, self.height - MARGIN - TEXT_LINE * len(caption), TEXT_LINE, TEXT, "normal", "#444444")
        if rows:
            self._legend(legend, columns, self._top + body + 0.08)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place of the body, in inches from its upper left corner."""
        bottom = self.height - self._top - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def save(self, path: Path) -> Path:
        """Write the figure, replacing an earlier one as a whole.

        Raises:
            ConfigError: The file cannot be written.
        """
        data = self._bytes(path.suffix)
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigError(f"{path}: the plot cannot be written: {error.strerror}") from error
        return path

    def _bytes(self, suffix: str) -> bytes:
        buffer = io.BytesIO()
        # Dates and versions in the metadata would make equal plots differ.
        metadata = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
        self.figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        return buffer.getvalue()

    def _lines(
        self, lines: list[str], top: float, step: float, size: float, weight: str, colour: str = "black"
    ) -> None:
        for index, line in enumerate(lines):
            y = 1 - (top + step * index) / self.height
            self.figure.text(MARGIN / self.width, y, line, size=size, weight=weight, color=colour, va="top", ha="left")

    def _legend(self, entries: Sequence[LegendEntry], columns: int, top: float) -> None:
        self.figure.legend(
            [entry.handle for entry in entries],
            [entry.label for entry in entries],
            loc="upper left",
            bbox_to_anchor=(MARGIN / self.width, 1 - top / self.height),
            ncols=columns,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.5,
            columnspacing=1.2,
        )


def _legend_shape(entries: Sequence[LegendEntry], inches: float) -> tuple[int, int]:
    if not entries:
        return 0, 0
    column = widest([entry.label for entry in entries], TEXT) + LEGEND_HANDLE
    columns = min(len(entries), max(1, int(inches // column)))
    return columns, -(-len(entries) // columns)
