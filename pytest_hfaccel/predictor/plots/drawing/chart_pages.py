"""A chart as bars or as heat maps, whichever can be read. Imported late."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.predictor.plots.drawing.bar_chart import draw_bar_chart
from pytest_hfaccel.predictor.plots.drawing.chart import FEW, Chart
from pytest_hfaccel.predictor.plots.drawing.heat_chart import draw_heat_chart
from pytest_hfaccel.predictor.plots.drawing.page import Page


def chart_pages(chart: Chart) -> Iterator[tuple[str, Page]]:
    """Yield names of files, without suffix, and figures; none for a chart without any number."""
    models = chart.models
    if len(models) > FEW:
        yield from draw_heat_chart(chart)
    elif models:
        yield chart.name, draw_bar_chart(chart)
