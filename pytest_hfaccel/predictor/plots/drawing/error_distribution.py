"""How the errors of predictions are distributed, per family, one panel per device. Imported late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import fmean, median, quantiles

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pytest_hfaccel.predictor.plots.accuracy_rows import AccuracyRow
from pytest_hfaccel.predictor.plots.drawing.measure import widest
from pytest_hfaccel.predictor.plots.drawing.page import Heading, LegendEntry, Page
from pytest_hfaccel.predictor.plots.drawing.panel_grid import (
    Panel,
    PanelSize,
    draw_panels,
    even_columns,
    label_axes,
    page_numbers,
)
from pytest_hfaccel.predictor.plots.drawing.predicted_measured import BAND, by_device, family_looks, subtitle
from pytest_hfaccel.predictor.plots.drawing.scales import log_axis
from pytest_hfaccel.predictor.plots.drawing.style import SMALL, UNKNOWN_COLOUR
from pytest_hfaccel.predictor.plots.words import file_part, plain

PANELS_PER_PAGE = 6
ROW = 0.36
GOLDEN = 0.6180339887
HOW = (
    "One mark per measured point; thick bar: middle half of them, line: their median. Families are sorted by their "
    "mean absolute error, which stands beside them."
)


def error_distribution(rows: list[AccuracyRow], quantity: str, unit: str, source: str) -> Iterator[tuple[str, Page]]:
    """Draw one panel per device."""
    del unit  # a ratio has none
    devices = by_device(rows)
    size = _size(list(devices.values()))
    limits = [row.ratio for row in rows]
    reach = max(*limits, *(1 / ratio for ratio in limits), 1 + 1.5 * BAND)
    for part, shown in page_numbers(list(devices.items()), PANELS_PER_PAGE):
        panels = [
            Panel(
                plain(device),
                f"{len(of_device)} points",
                partial(_draw, rows=of_device, all_rows=rows, reach=reach, size=size),
            )
            for device, of_device in shown
        ]
        title = f"Errors of the predicted {quantity} per model family{part.title}"
        page = draw_panels(
            panels, even_columns(len(panels), 3), size, Heading(title, subtitle(rows, source), HOW), _legend()
        )
        yield f"errors_{file_part(quantity)}{part.file}", page


def _size(devices: list[list[AccuracyRow]]) -> PanelSize:
    families = max(len({row.family for row in rows}) for rows in devices)
    labels = {plain(row.family) for rows in devices for row in rows}
    notes = [_note(of_family) for rows in devices for of_family in _families(rows).values()]
    return PanelSize(
        width=3.2, height=families * ROW + 0.1, left=0.15 + widest(labels, SMALL), right=0.14 + widest(notes, SMALL)
    )


def _legend() -> list[LegendEntry]:
    return [
        LegendEntry("middle half", Line2D([], [], color="#555555", linewidth=6, alpha=0.55, solid_capstyle="butt")),
        LegendEntry(f"\u00b1{BAND:.0%}", Patch(color=UNKNOWN_COLOUR, alpha=0.18, linewidth=0)),
    ]


def _families(rows: list[AccuracyRow]) -> dict[str, list[AccuracyRow]]:
    """The rows of each family, the best family first."""
    grouped = {family: [row for row in rows if row.family == family] for family in {row.family for row in rows}}
    return dict(sorted(grouped.items(), key=lambda item: (_mean_error(item[1]), item[0])))


def _mean_error(rows: list[AccuracyRow]) -> float:
    return fmean(abs(row.ratio - 1) for row in rows)


def _note(rows: list[AccuracyRow]) -> str:
    return f"{_mean_error(rows):.1%}, n = {len(rows)}"


def _draw(axes: Axes, rows: list[AccuracyRow], all_rows: list[AccuracyRow], reach: float, size: PanelSize) -> None:
    log_axis(axes, "x", 1 / reach, reach, size.width)
    axes.axvspan(1 - BAND, 1 + BAND, color=UNKNOWN_COLOUR, alpha=0.18, linewidth=0, zorder=1)
    axes.axvline(1, color="#333333", linewidth=1, zorder=2)
    families = _families(rows)
    looks = family_looks(all_rows)
    for index, (family, of_family) in enumerate(families.items()):
        _draw_family(axes, [row.ratio for row in of_family], ROW * (index + 0.5) + 0.05, *looks[family])
        axes.text(1 + 0.06 / size.width, 1 - (ROW * (index + 0.5) + 0.05) / size.height, _note(of_family),
                  transform=axes.transAxes, size=SMALL, va="center")  # fmt: skip
    axes.set_ylim(size.height, 0)
    axes.set_yticks(
        [ROW * (index + 0.5) + 0.05 for index in range(len(families))], [plain(family) for family in families]
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    label_axes(axes, "predicted / measured (\u00d7, 1 is right)")


def _draw_family(axes: Axes, ratios: list[float], y: float, colour: str, mark: str) -> None:
    if len(ratios) > 1:
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        axes.hlines(y, low, high, color="#555555", linewidth=6, alpha=0.55, zorder=3)
        axes.vlines(median(ratios), y - 0.1, y + 0.1, color="white", linewidth=2.2, zorder=5)
        axes.vlines(median(ratios), y - 0.1, y + 0.1, color="black", linewidth=1, zorder=5)
    # Spread by the golden ratio: even, and the same in every run, unlike random jitter.
    heights = [y + ROW * 0.7 * ((0.5 + index * GOLDEN) % 1 - 0.5) for index in range(len(ratios))]
    axes.plot(ratios, heights, mark, color=colour, markersize=4, alpha=0.75, markeredgewidth=0, zorder=4)
