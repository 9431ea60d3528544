"""The roofline of a device, with models on it. Imported late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pytest_hfaccel.plots.inputs import Roof, RooflinePoint, is_measured
from pytest_hfaccel.plots.style import (
    COLOURS,
    GREY,
    MARKERS,
    NOT_MEASURED,
    Heading,
    compact,
    cycle,
    file_part,
    mark,
    panels,
    plain,
    plain_ticks,
)


def figures(points: list[RooflinePoint], roof: Roof, roof_source: str) -> Iterator[tuple[str, Figure]]:
    """Draw one page: the roof, and a numbered mark for each point, with the models' names beside."""
    points = sorted(points, key=lambda point: (point.family, point.model, point.intensity))
    names = list(dict.fromkeys(point.model for point in points))
    families = sorted({point.family for point in points})
    colours, markers = cycle(families, COLOURS), cycle(families, MARKERS)
    family_of = {point.model: point.family for point in points}
    legend: dict[str, Any] = {}
    for number, name in enumerate(names, 1):
        family = family_of[name]
        legend[f"{number}  {plain(name, 44)}"] = mark(colours[family], markers[family])
    legend |= {plain(family): mark(colours[family], markers[family]) for family in families if family}
    shown = {is_measured(point.source) for point in points}
    words = {True: "measured", False: NOT_MEASURED}
    legend |= {words[measured]: mark(GREY, solid=measured) for measured in sorted(shown, reverse=True)}
    height = max(5.0, 0.16 * len(legend))
    figure, (axes,) = panels(1, 1, (8.0, height), _heading(points, roof, roof_source), legend)

    intensities = [roof.ridge, *(point.intensity for point in points)]
    left, right = min(intensities) / 2.5, max(intensities) * 2.5
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.plot([left, roof.ridge, right], [roof.at(left), roof.peak, roof.peak], color="#333333", linewidth=2)
    axes.axvline(roof.ridge, color=GREY, linewidth=1, linestyle=":")
    axes.annotate(f"ridge at {compact(roof.ridge)} FLOP/byte", (roof.ridge, roof.peak), (4, -12), fontsize=7,
                  textcoords="offset points")  # fmt: skip
    for point in points:
        colour = colours[point.family]
        face = colour if is_measured(point.source) else "white"
        axes.scatter(point.intensity, point.speed, 26, face, marker=markers[point.family], edgecolors=colour, zorder=3)
        place = (point.intensity, point.speed)
        axes.annotate(str(names.index(point.model) + 1), place, (4, 2), textcoords="offset points", fontsize=7)
    plain_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s"))
    axes.set_xlabel("operational intensity (FLOP per byte moved)")
    axes.set_ylabel("performance (FLOP/s)")
    yield f"roofline_{file_part(roof.device)}", figure


def _heading(points: list[RooflinePoint], roof: Roof, source: str) -> Heading:
    shares = [point.speed / roof.at(point.intensity) for point in points]
    above = sum(share > 1 for share in shares)
    reached = f"Share of the roof that is reached: median {median(shares):.0%}"
    reached += f", from {min(shares):.0%} to {max(shares):.0%}." if len(shares) > 1 else "."
    if above:
        reached += f" {above} above the roof: operations or bytes are over-counted, or the roof is too low."
    counts = Counter(point.source or "of a source that is not stated" for point in points)
    sources = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda i: (-i[1], i[0])))
    engineering = EngFormatter(places=None)
    peak, bandwidth = (engineering(number) for number in (roof.peak, roof.bandwidth))
    origin = plain(source) if source else "source of the roof not stated"
    subtitle = f"peak {peak}FLOP/s, {bandwidth}B/s \u00b7 {origin}"
    return Heading(f"Roofline of {plain(roof.device)}", subtitle, f"{reached} Points: {sources}.")
