"""Predicted against measured numbers, one panel per device. Imported late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pytest_hfaccel.predictor.plots.accuracy_rows import AccuracyRow, accuracy_of
from pytest_hfaccel.predictor.plots.drawing.label_placement import along, place_labels
from pytest_hfaccel.predictor.plots.drawing.measure import shorten
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import (
    Panel,
    PanelSize,
    draw_panels,
    even_columns,
    label_axes,
    page_numbers,
)
from pytest_hfaccel.predictor.plots.drawing.scales import log_axis
from pytest_hfaccel.predictor.plots.drawing.style import SMALL, UNKNOWN_COLOUR, category_colours, markers
from pytest_hfaccel.predictor.plots.words import file_part, plain
from pytest_hfaccel.predictor.prediction import INTERVAL

SIZE = PanelSize(width=3.6, height=3.6, left=0.6)
PANELS_PER_PAGE = 6
BAND = 0.2
WORST = 3
"""So many points, those with the greatest errors beyond the band, carry the model's name."""
HOW = (
    f"The line is predicted = measured, the band \u00b1{BAND:.0%}. MAPE: mean of |predicted \u2212 measured| / "
    f"measured. Coverage: share of measured numbers in their interval (vertical bars), which should be {INTERVAL:.0%}. "
    "Named: the greatest errors outside the band."
)


def predicted_against_measured(
    rows: list[AccuracyRow], quantity: str, unit: str, source: str
) -> Iterator[tuple[str, Page]]:
    """Draw one panel per device."""
    devices = by_device(rows)
    for part, shown in page_numbers(list(devices.items()), PANELS_PER_PAGE):
        panels = [
            Panel(
                plain(device),
                accuracy_of(of_device).text,
                partial(_draw, rows=of_device, all_rows=rows, quantity=quantity, unit=unit),
            )
            for device, of_device in shown
        ]
        title = f"Predicted against measured {quantity}{part.title}"
        yield (
            f"accuracy_{file_part(quantity)}{part.file}",
            draw_panels(
                panels, even_columns(len(panels), 3), SIZE, Heading(title, subtitle(rows, source), HOW), _legend(rows)
            ),
        )


def by_device(rows: Sequence[AccuracyRow]) -> dict[str, list[AccuracyRow]]:
    """The rows of each device, sorted by its id."""
    devices = sorted({row.device for row in rows})
    return {device: [row for row in rows if row.device == device] for device in devices}


def subtitle(rows: Sequence[AccuracyRow], source: str) -> str:
    """How many rows of what, and how the predictions came about."""
    models, families = len({row.model for row in rows}), len({row.family for row in rows})
    counts = f"measured points: {len(rows):,}, models: {models}, families: {families}"
    made = f" \u00b7 predictions: {plain(source)}" if source else ""
    return counts + made


def family_looks(rows: Sequence[AccuracyRow]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each family."""
    families = sorted({row.family for row in rows})
    colours, marks = category_colours(families), markers(families)
    return {family: (colours[family], marks[family]) for family in families}


def _legend(rows: Sequence[AccuracyRow]) -> list[LegendEntry]:
    families = [
        LegendEntry(plain(family), Line2D([], [], color=colour, marker=mark, linestyle=""))
        for family, (colour, mark) in family_looks(rows).items()
    ]
    line = LegendEntry("predicted = measured", Line2D([], [], color="#333333", linewidth=1))
    return [*families, line, LegendEntry(f"\u00b1{BAND:.0%}", Patch(color=UNKNOWN_COLOUR, alpha=0.18, linewidth=0))]


def _draw(axes: Axes, rows: list[AccuracyRow], all_rows: list[AccuracyRow], quantity: str, unit: str) -> None:
    _frame(axes, rows)
    looks = family_looks(all_rows)
    for row in rows:
        colour, mark = looks[row.family]
        if row.predicted.low is not None:
            axes.vlines(row.measured, row.predicted.bottom, row.predicted.top, color=colour, linewidth=0.8, alpha=0.45)
        axes.plot(
            row.measured,
            row.predicted.value,
            mark,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3,
        )
    label_axes(axes, f"measured {quantity} ({unit})", f"predicted {quantity} ({unit})")
    _name_the_worst(axes, rows)


def _frame(axes: Axes, rows: list[AccuracyRow]) -> None:
    """The same limits on both axes, the identity line and the band."""
    numbers = [
        number for row in rows for number in (row.measured, row.predicted.bottom or row.measured, row.predicted.top)
    ]
    for which, inches in (("x", SIZE.width), ("y", SIZE.height)):
        log_axis(axes, which, min(numbers), max(numbers), inches, room=0.15)  # type: ignore[arg-type]
    ends = list(axes.get_xlim())
    axes.plot(ends, ends, color="#333333", linewidth=1, zorder=2)
    lower, upper = [end * (1 - BAND) for end in ends], [end * (1 + BAND) for end in ends]
    axes.fill_between(ends, lower, upper, color=UNKNOWN_COLOUR, alpha=0.18, linewidth=0, zorder=1)


def _name_the_worst(axes: Axes, rows: list[AccuracyRow]) -> None:
    far = sorted(rows, key=lambda row: -abs(row.ratio - 1))[:WORST]
    worst = {id(row) for row in far if abs(row.ratio - 1) > BAND}
    texts = [shorten(plain(row.model), 1.7, SMALL) if id(row) in worst else "" for row in rows]
    places = [(row.measured, row.predicted.value) for row in rows]
    low, high = axes.get_xlim()
    place_labels(axes, places, texts, SMALL, along(axes, [(low, low), (high, high)]))
