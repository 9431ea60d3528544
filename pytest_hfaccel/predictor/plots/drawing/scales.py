"""Axes with ticks that are few, round and do not touch, on linear and logarithmic scales. Imported late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from pytest_hfaccel.predictor.plots.drawing.measure import text_width
from pytest_hfaccel.predictor.plots.drawing.style import SMALL
from pytest_hfaccel.predictor.plots.words import compact

STEPS = [1, 2, 2.5, 5, 10]
NARROWEST = 1.2
"""The least ratio between the ends of a logarithmic axis: labels of three digits must differ."""

Which = Literal["x", "y"]


def linear_axis(axes: Axes, which: Which, low: float, high: float, inches: float) -> None:
    """Set a linear axis from `low` to `high` that is so many inches long."""
    ticks = MaxNLocator(nbins=max(2, int(inches / 0.55)), steps=STEPS).tick_values(low, high)
    _set(axes, which, low, high, [float(tick) for tick in ticks if low <= tick <= high], inches)


def log_axis(axes: Axes, which: Which, low: float, high: float, inches: float, *, room: float = 0.1) -> None:
    """Set a logarithmic axis that shows `low` to `high`, with so many inches of room at both ends (where it can)."""
    # A span of nothing gets a width, so that a single point stands in the middle.
    span = max(math.log(high / low), math.log(NARROWEST))
    middle, half = math.sqrt(low * high), math.exp(span / 2 * inches / (inches - 2 * room))
    low, high = middle / half, middle * half
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    _set(axes, which, low, high, log_ticks(low, high), inches)


def category_axis(axes: Axes, values: Sequence[float], inches: float, *, room: float = 1.25) -> None:
    """Set a logarithmic x axis with ticks at given values (batch sizes), as many as fit."""
    axes.set_xscale("log", base=2)
    _set(axes, "x", min(values) / room, max(values) * room, list(values), inches)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two: powers of ten, or 1-2-5 steps, or even steps where the span is short."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5)):
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) >= 3:
            return shown
    return [
        float(tick)
        for tick in MaxNLocator(nbins=4, steps=STEPS).tick_values(low, high)
        if tick > 0 and low <= tick <= high
    ]


def _set(axes: Axes, which: Which, low: float, high: float, ticks: Sequence[float], inches: float) -> None:
    shown = _that_fit(axes, which, ticks, (low, high), inches)
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(shown))
    axis.set_major_formatter(FixedFormatter([compact(tick) for tick in shown]))
    axis.set_minor_locator(NullLocator())


def _that_fit(
    axes: Axes, which: Which, ticks: Sequence[float], limits: tuple[float, float], inches: float
) -> list[float]:
    """The most of every, every second, every third, ... tick whose labels do not touch."""
    logarithmic = (axes.get_xscale() if which == "x" else axes.get_yscale()) == "log"
    places = [inches * _share(tick, *limits, logarithmic=logarithmic) for tick in ticks]
    sizes = [text_width(compact(tick), SMALL) + 0.08 if which == "x" else 0.17 for tick in ticks]
    for step in range(1, len(ticks)):
        chosen = range(0, len(ticks), step)
        if all(places[b] - places[a] >= (sizes[a] + sizes[b]) / 2 for a, b in pairwise(chosen)):
            return [ticks[index] for index in chosen]
    return list(ticks[:1])


def _share(value: float, low: float, high: float, *, logarithmic: bool) -> float:
    if logarithmic:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)
