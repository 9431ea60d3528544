"""The roofline plot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots import plot_roofline
from pytest_hfaccel.predictor.plots.roofline_points import read_roof, read_roofline_points
from tests.unit.plots_samples import (
    check_axes,
    check_layout,
    name_of,
    needs_matplotlib,
    panels_of,
    roofline_points,
    texts_of,
    words_of,
)

needs_matplotlib()

PEAK, BANDWIDTH = 100e9, 10e9


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    """Our style, for the figures that a test draws."""
    from pytest_hfaccel.predictor.plots.drawing.style import house_style

    with house_style():
        yield


def chart(points: list[dict[str, Any]], **roof: Any) -> Any:
    from pytest_hfaccel.predictor.plots.drawing.roofline_chart import roofline_chart

    ((name, page),) = roofline_chart(
        read_roofline_points(points), read_roof("Some CPU", PEAK, BANDWIDTH), roof.get("source", "calibration")
    )
    assert name == "roofline_Some_CPU"
    return page.figure


@pytest.mark.parametrize("models", [1, 4, 12, 13, 50])
def test_it_can_be_read(models: int) -> None:
    figure = chart(roofline_points(models))
    check_layout(figure)
    check_axes(figure)


def test_crowded_points_can_be_read() -> None:
    points = [{**roofline_points(1)[0], "model": f"model {n}", "seconds": 0.1 * 1.002**n} for n in range(30)]
    check_layout(chart(points))


def test_labels_keep_clear_of_words_that_stand_there() -> None:
    from pytest_hfaccel.predictor.plots.drawing.label_placement import place_labels
    from pytest_hfaccel.predictor.plots.drawing.page import Heading, Page

    page = Page(Heading("title", "", ""), 5, 5)
    axes = page.axes(0.5, 0.5, 4, 4)
    axes.text(0.53, 0.5, "right where the first label would go", size=7, va="center")
    place_labels(axes, [(0.5, 0.5)], ["label"], 7)
    check_layout(page.figure)


def test_the_roof() -> None:
    figure = chart(roofline_points(3))
    panel = panels_of(figure)[0]
    roof = panel.lines[0]
    left, right = panel.get_xlim()
    assert roof.get_xdata() == pytest.approx((left, 10.0, right))
    assert roof.get_ydata() == pytest.approx((left * BANDWIDTH, PEAK, PEAK))
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert panel.get_xlabel() == "operational intensity (FLOP per byte moved)"
    assert panel.get_ylabel() == "performance (FLOP/s)"
    for words in ("Roofline of Some CPU", "peak 100 GFLOP/s, 10 GB/s \u00b7 calibration", "ridge at 10 FLOP/byte"):
        assert words in words_of(figure)


def test_points_are_where_models_are() -> None:
    points = roofline_points(5)
    panel = panels_of(chart(points))[0]
    drawn = [line for line in panel.lines if line.get_marker() not in ("None", "", None) and len(line.get_xdata()) == 1]
    places = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in drawn)
    expected = sorted((p["flops"] / p["moved_bytes"], p["flops"] / p["seconds"]) for p in points)
    assert places == [pytest.approx(place) for place in expected]
    assert sum(line.get_markerfacecolor() == "white" for line in drawn) == 3  # predicted ones are open


def test_few_points_are_named_and_many_numbered() -> None:
    few = {text.get_text() for text in texts_of(chart(roofline_points(4)))}
    assert {name_of(0), name_of(2)} <= few
    figure = chart(roofline_points(13))
    numbers = [text.get_text() for text in texts_of(figure) if text.get_text() in {str(n) for n in range(1, 14)}]
    assert sorted(numbers, key=int) == [str(n) for n in range(1, 14) for _ in range(2)]  # at the point and in the list


def test_points_of_one_model_share_a_number() -> None:
    points = [{**point, "model": f"model {index % 2}"} for index, point in enumerate(roofline_points(14))]
    figure = chart(points)
    check_layout(figure)
    words = [text.get_text() for text in texts_of(figure)]
    assert words.count("model 0") == words.count("model 1") == 1
    assert words.count("2") >= 8


def test_what_is_reached_is_said() -> None:
    assert "Share of the roof that is reached: median 50%, from 50% to 50%. Points: 2 calibrated, 1 measured." in (
        words_of(chart(roofline_points(3))).replace("\n", " ")
    )
    fast = {**roofline_points(1)[0], "seconds": 1e-3, "source": None}
    words = words_of(chart([fast], source="")).replace("\n", " ")
    assert "1 above the roof" in words
    assert "of a source that is not stated" in words
    assert "source of the roof not stated" in words


def test_labels_keep_clear_of_each_other() -> None:
    from pytest_hfaccel.predictor.plots.drawing.label_placement import Box, place_labels
    from pytest_hfaccel.predictor.plots.drawing.page import Heading, Page

    axes = Page(Heading("title", "", ""), 5, 5).axes(0.5, 0.5, 4, 4)
    points = [(math.cos(n), math.sin(n)) for n in range(12)]
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2, 2)
    boxes = place_labels(axes, points, [f"label {n}" if n else "" for n in range(12)], 7)
    assert len(boxes) == 11
    for index, box in enumerate(boxes):
        assert all(box.overlap(other) == 0 for other in boxes[index + 1 :])
    assert Box(0, 0, 1, 1).overlap(Box(0.5, 0.5, 2, 2)) == 0.25
    assert Box(0, 0, 1, 1).outside(Box(0.5, 0, 2, 2)) == 0.5


def test_rows_that_are_not_known_are_left_out() -> None:
    rows = [*roofline_points(2), {**roofline_points(1)[0], "seconds": None}]
    assert len(read_roofline_points(rows)) == 2


@pytest.mark.parametrize(
    ("points", "roof", "problem"),
    [
        ([], (1, 1), "points: there is no row"),
        ([{"model": "a"}], (1, 1), r"points\[0\]: flops, moved_bytes, seconds is missing"),
        (
            [{"model": "a", "flops": -1, "moved_bytes": 0, "seconds": 1}],
            (1, 1),
            r"flops: -1[^\0]*moved_bytes: 0 cannot",
        ),
        ([{"model": "a", "flops": None, "moved_bytes": 1, "seconds": 1}], (1, 1), "no row has flops"),
        (roofline_points(1), (0, 1), "peak_flops: 0 cannot be"),
        (roofline_points(1), (1, None), "bandwidth: a number > 0 is needed"),
        (roofline_points(1), (float("inf"), 1), "peak_flops: inf cannot be"),
    ],
)
def test_wrong_input(points: Any, roof: tuple[Any, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_roofline(points, *roof, "Some CPU", tmp_path)


def test_names_of_devices_are_safe_in_the_file(tmp_path: Path) -> None:
    (file,) = plot_roofline(roofline_points(1), PEAK, BANDWIDTH, "../a/b", tmp_path)
    assert file.parent == tmp_path
    assert file.exists()
