"""Colours, marks and line styles of what was measured: the same in all plots of measurements. Imported late."""

from __future__ import annotations

from matplotlib.lines import Line2D

from pytest_hfaccel.predictor.plots.drawing.line_panel import LineStyle, Look
from pytest_hfaccel.predictor.plots.drawing.page import LegendEntry
from pytest_hfaccel.predictor.plots.drawing.style import UNKNOWN_COLOUR, category_colours, hardware_colours, markers
from pytest_hfaccel.predictor.plots.measured_runs import MeasuredRuns

STYLES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")


def measured_on(runs: MeasuredRuns) -> str:
    """The subtitle: that the numbers were measured, how many, and on what."""
    return " \u00b7 ".join(filter(None, (f"measured points: {len(runs.rows):,}", runs.chips)))


def length_name(length: int) -> str:
    """A sequence length in words."""
    return f"{length} tokens" if length else "no text input"


def setup_colours(runs: MeasuredRuns) -> dict[str, str]:
    """The colour of the hardware, where every device was measured in one way; else one per way."""
    devices = {runs.setup(row): row.device for row in runs.rows}
    if len(set(devices.values())) < len(devices):
        return category_colours(runs.setups)
    colours = hardware_colours(sorted(devices.values()))
    return {setup: colours[devices[setup]] for setup in runs.setups}


def line_looks(runs: MeasuredRuns) -> dict[tuple[str, int], Look]:
    """How the line of a setup at a sequence length looks; the style of lines repeats after four lengths."""
    colours, marks, styles = setup_colours(runs), markers(runs.setups), _styles(runs)
    return {
        (setup, length): Look(colours[setup], marks[setup], styles[length])
        for setup in runs.setups
        for length in runs.lengths
    }


def _styles(runs: MeasuredRuns) -> dict[int, LineStyle]:
    return {length: STYLES[index % len(STYLES)] for index, length in enumerate(runs.lengths)}


def line_legend(runs: MeasuredRuns) -> list[LegendEntry]:
    """Setups, and lengths where there are several."""
    looks = line_looks(runs)
    setups = [LegendEntry(setup, looks[setup, runs.lengths[0]].handle()) for setup in runs.setups]
    lengths = [
        LegendEntry(length_name(length), Line2D([], [], color=UNKNOWN_COLOUR, linestyle=style))
        for length, style in _styles(runs).items()
    ]
    return [*setups, *lengths]
