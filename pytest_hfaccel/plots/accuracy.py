"""Predicted against measured numbers, and how the errors are distributed. Imported late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, median, quantiles
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pytest_hfaccel.core.prediction import INTERVAL
from pytest_hfaccel.plots.inputs import AccuracyRow
from pytest_hfaccel.plots.style import (
    COLOURS,
    GREY,
    MARKERS,
    Heading,
    cycle,
    file_part,
    mark,
    pages,
    panel_title,
    panels,
    plain,
    plain_ticks,
    swatch,
)

_BAND = 0.2
_NAMED = 3
"""So many points, those with the greatest errors beyond the band, carry the model's name."""
_PER_PAGE = 6
_GOLDEN = 0.6180339887


def accuracy_text(rows: Sequence[AccuracyRow]) -> str:
    """Say how good predictions are, on one line.

    MAPE is the mean of |predicted - measured| / measured, Spearman the rank correlation (of three rows or more),
    coverage the share of rows whose interval holds the measured number.
    """
    from scipy.stats import spearmanr

    predicted, measured = [row.predicted.value for row in rows], [row.measured for row in rows]
    covered = [row.covered for row in rows if row.covered is not None]
    ranked = len(rows) > 2 and len(set(predicted)) > 1 and len(set(measured)) > 1
    spearman = f"{spearmanr(predicted, measured).statistic:.3f}" if ranked else "n/a"
    coverage = f"{fmean(covered):.0%}" if covered else "n/a"
    mape = fmean(abs(row.ratio - 1) for row in rows)
    return f"n = {len(rows)}, MAPE {mape:.1%}, Spearman {spearman}, coverage {coverage}"


def figures(rows: list[AccuracyRow], quantity: str, unit: str, source: str) -> Iterator[tuple[str, Figure]]:
    """Draw both kinds of plots, one panel per device; yields the names of their files, without suffix."""
    by_device = [(name, [row for row in rows if row.device == name]) for name in sorted({row.device for row in rows})]
    models, families = len({row.model for row in rows}), sorted({row.family for row in rows})
    subtitle = f"measured points: {len(rows):,}, models: {models}, families: {len(families)}"
    subtitle += f" \u00b7 predictions: {plain(source)}" if source else ""
    colours, markers = cycle(families, COLOURS), cycle(families, MARKERS)
    band = {f"\u00b1{_BAND:.0%}": swatch(GREY, 0.18)}

    legend: dict[str, Any] = {plain(family): mark(colours[family], markers[family]) for family in families}
    legend |= {"predicted = measured": mark("#333333", "", line="-"), **band}
    how = (
        f"The line is predicted = measured, the band \u00b1{_BAND:.0%}. MAPE: mean of |predicted \u2212 measured| / "
        f"measured. Coverage: share of measured numbers in their interval (vertical bars), which should be "
        f"{INTERVAL:.0%}. Named: the greatest errors outside the band."
    )
    name, title = f"accuracy_{file_part(quantity)}", f"Predicted against measured {quantity}"
    for file, page_title, devices in pages(name, title, by_device, _PER_PAGE):
        figure, axes = panels(len(devices), 3, (4.2, 4.2), Heading(page_title, subtitle, how), legend)
        for panel, (device, of_device) in zip(axes, devices, strict=True):
            _draw_points(panel, of_device, colours, markers)
            panel.set_xlabel(f"measured {quantity} ({unit})")
            panel.set_ylabel(f"predicted {quantity} ({unit})")
            panel_title(panel, device, accuracy_text(of_device))
        yield file, figure

    how = (
        "One mark per measured point; thick bar: middle half of them, line: their median. Families are sorted by their "
        "mean absolute error, which stands beside them."
    )
    name, title = f"errors_{file_part(quantity)}", f"Errors of the predicted {quantity} per model family"
    reach = max(*(row.ratio for row in rows), *(1 / row.ratio for row in rows), 1 + 1.5 * _BAND)
    for file, page_title, devices in pages(name, title, by_device, _PER_PAGE):
        size = (4.4, 1.2 + 0.36 * len(families))
        figure, axes = panels(len(devices), 3, size, Heading(page_title, subtitle, how), band)
        for panel, (device, of_device) in zip(axes, devices, strict=True):
            _draw_errors(panel, of_device, colours, markers)
            panel.set_xscale("log")
            panel.set_xlim(1 / (1.1 * reach), 1.1 * reach)
            plain_ticks(panel.xaxis)
            panel.set_xlabel("predicted / measured (\u00d7, 1 is right)")
            panel_title(panel, device, f"{len(of_device)} points")
        yield file, figure


def _draw_points(axes: Axes, rows: Sequence[AccuracyRow], colours: dict[str, str], markers: dict[str, str]) -> None:
    numbers = [n for row in rows for n in (row.measured, row.predicted.value, row.predicted.bottom, row.predicted.top)]
    ends = [min(n for n in numbers if n > 0) / 1.3, max(numbers) * 1.3]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(ends[0], ends[1])
    axes.set_ylim(ends[0], ends[1])
    axes.set_aspect("equal")
    axes.plot(ends, ends, color="#333333", linewidth=1)
    axes.fill_between(ends, [(1 - _BAND) * n for n in ends], [(1 + _BAND) * n for n in ends], color=GREY, alpha=0.18)
    for row in rows:
        colour = colours[row.family]
        if row.predicted.low is not None:
            axes.vlines(row.measured, row.predicted.bottom, row.predicted.top, color=colour, linewidth=0.8, alpha=0.45)
        axes.scatter(row.measured, row.predicted.value, 22, colour, marker=markers[row.family], zorder=3)
    worst = sorted((row for row in rows if abs(row.ratio - 1) > _BAND), key=lambda row: -abs(row.ratio - 1))
    for row in worst[:_NAMED]:
        place = (row.measured, row.predicted.value)
        axes.annotate(plain(row.model, 30), place, (5, 3), textcoords="offset points", fontsize=7)
    plain_ticks(axes.xaxis, axes.yaxis)


def _draw_errors(axes: Axes, rows: Sequence[AccuracyRow], colours: dict[str, str], markers: dict[str, str]) -> None:
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row.family, []).append(row.ratio)
    errors = {family: fmean(abs(ratio - 1) for ratio in of_family) for family, of_family in ratios.items()}
    families = sorted(ratios, key=lambda family: (errors[family], family))
    axes.axvspan(1 - _BAND, 1 + _BAND, color=GREY, alpha=0.18, linewidth=0)
    axes.axvline(1, color="#333333", linewidth=1)
    for at, family in enumerate(families):
        shown = ratios[family]
        if len(shown) > 1:
            low, _, high = quantiles(shown, n=4, method="inclusive")
            axes.hlines(at, low, high, color="#555555", linewidth=6, alpha=0.55)
            axes.vlines(median(shown), at - 0.3, at + 0.3, color="black", linewidth=1.4, zorder=5)
        # Spread by the golden ratio: even, and the same in every run, unlike random jitter.
        heights = [at + 0.7 * ((0.5 + index * _GOLDEN) % 1 - 0.5) for index in range(len(shown))]
        axes.scatter(shown, heights, 16, colours[family], marker=markers[family], alpha=0.75, linewidths=0, zorder=4)
        note = f"{errors[family]:.1%}, n = {len(shown)}"
        axes.text(1.02, at, note, transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.set_yticks(range(len(families)), [plain(family) for family in families])
    axes.set_ylim(len(families) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
