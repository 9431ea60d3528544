"""Ticks: few, round, and apart from each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.plots_samples import check_layout, needs_matplotlib

needs_matplotlib()


@pytest.fixture
def axes() -> Iterator[Any]:
    """Axes of 2 x 2 inches on a page."""
    from pytest_hfaccel.predictor.plots.drawing.page import Heading, Page
    from pytest_hfaccel.predictor.plots.drawing.style import house_style

    with house_style():
        yield Page(Heading("title", "subtitle", "caption"), 4, 3).axes(1, 0.5, 2, 2)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 2000, [1, 10, 100, 1000]),
        (3, 70, [5, 10, 20, 50]),
        (100, 130, [100, 110, 120, 130]),
        (0.9, 1.1, [0.9, 1.0, 1.1]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    from pytest_hfaccel.predictor.plots.drawing.scales import log_ticks

    assert log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("batches", [[1.0], [1.0, 2.0], [float(n) for n in range(1, 65)], [2.0**n for n in range(16)]])
def test_ticks_of_batches_do_not_touch(axes: Any, batches: list[float]) -> None:
    from pytest_hfaccel.predictor.plots.drawing.scales import category_axis

    category_axis(axes, batches, 2)
    axes.set_yticks([])
    check_layout(axes.figure)
    shown = axes.get_xticks()
    assert set(shown) <= set(batches)
    assert len(shown) >= min(2, len(batches))
    assert axes.get_xlim()[0] < min(batches) <= max(batches) < axes.get_xlim()[1]


@pytest.mark.parametrize("span", [(1e-6, 1e9), (1, 10), (99, 101), (5, 5), (1, 1e12)])
@pytest.mark.parametrize("which", ["x", "y"])
def test_ticks_of_logarithmic_axes_do_not_touch(axes: Any, which: Any, span: tuple[float, float]) -> None:
    from pytest_hfaccel.predictor.plots.drawing.scales import log_axis

    log_axis(axes, which, *span, 2)
    (axes.set_yticks if which == "x" else axes.set_xticks)([])
    check_layout(axes.figure)
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    assert low < span[0] <= span[1] < high
    assert len(axes.get_xticks() if which == "x" else axes.get_yticks()) >= 2


@pytest.mark.parametrize("high", [0.001, 1, 12345, 9e9])
def test_ticks_of_linear_axes_do_not_touch(axes: Any, high: float) -> None:
    from pytest_hfaccel.predictor.plots.drawing.scales import linear_axis

    linear_axis(axes, "x", 0, high, 2)
    linear_axis(axes, "y", -high, high, 2)
    check_layout(axes.figure)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, high), (-high, high))
    assert 0 in axes.get_xticks()
    assert len(axes.get_xticks()) >= 2


def test_long_names_lose_their_middle() -> None:
    from pytest_hfaccel.predictor.plots.drawing.measure import shorten, text_width, wrap

    name = "organisation/a-very-long-model-name-base-uncased-v2"
    short = shorten(name, 2.0, 8)
    assert text_width(short, 8) <= 2.0
    assert short.startswith("organ")
    assert short.endswith("uncased-v2")
    assert shorten("bert", 2.0, 8) == "bert"
    lines = wrap("some words " * 20 + "x" * 200, 2.0, 8)
    assert len(lines) > 5
    assert all(text_width(line, 8) <= 2.0 for line in lines)
    assert wrap("", 2.0, 8) == []
