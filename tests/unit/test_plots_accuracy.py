"""Plots of predictions beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots import plot_accuracy
from pytest_hfaccel.predictor.plots.accuracy_rows import accuracy_of, read_accuracy_rows
from tests.unit.plots_samples import (
    FAMILIES,
    accuracy_rows,
    check_axes,
    check_layout,
    needs_matplotlib,
    panels_of,
    words_of,
)

needs_matplotlib()


@pytest.fixture
def styled() -> Iterator[None]:
    """Our style, for the figures that a test draws."""
    from pytest_hfaccel.predictor.plots.drawing.style import house_style

    with house_style():
        yield


def scatter(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from pytest_hfaccel.predictor.plots.drawing.predicted_measured import predicted_against_measured

    pages = predicted_against_measured(read_accuracy_rows(rows), "latency", "ms", "leave one out")
    return {name: page.figure for name, page in pages}


def errors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from pytest_hfaccel.predictor.plots.drawing.error_distribution import error_distribution

    return {n: page.figure for n, page in error_distribution(read_accuracy_rows(rows), "latency", "ms", "")}


def row(**changed: Any) -> dict[str, Any]:
    return {**accuracy_rows(1)[0], **changed}


def test_the_measures() -> None:
    rows = read_accuracy_rows(accuracy_rows(9))
    measured = accuracy_of(rows)
    assert measured.rows == 9
    assert measured.mape == pytest.approx(0.2 / 3)
    # Ratios 0.9, 1.0, 1.1 in turn; the interval holds every measured number.
    assert measured.coverage == 1
    assert measured.spearman == pytest.approx(1, abs=0.03)


def test_spearman_is_the_correlation_of_ranks_with_ties() -> None:
    rows = [row(predicted=p, low=None, measured=m) for p, m in ((1, 1), (2, 4), (2, 9), (50, 2))]
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 4, 2: sums of products 1.5, of squares 4.5 and 5.
    assert accuracy_of(read_accuracy_rows(rows)).spearman == pytest.approx(1.5 / math.sqrt(4.5 * 5))


def test_measures_that_cannot_be() -> None:
    two = accuracy_of(read_accuracy_rows([row(low=None), row(high=None)]))
    assert (two.spearman, two.coverage) == (None, None)
    assert two.text == "n = 2, MAPE 10.0%, Spearman n/a, coverage n/a"
    same = accuracy_of(read_accuracy_rows([row()] * 5))
    assert same.spearman is None


def test_coverage_counts_only_rows_with_an_interval() -> None:
    rows = [
        row(predicted=10, low=9, high=11, measured=10),
        row(predicted=10, low=9, high=11, measured=12),
        row(low=None),
    ]
    assert accuracy_of(read_accuracy_rows(rows)).coverage == 0.5


@pytest.mark.usefixtures("styled")
@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "openvino:CPU", "cuda:0", "webgpu")])
@pytest.mark.parametrize("models", [1, 12, 50])
def test_all_can_be_read(models: int, devices: tuple[str, ...]) -> None:
    rows = accuracy_rows(models, devices)
    for figure in (*scatter(rows).values(), *errors(rows).values()):
        check_layout(figure)
        check_axes(figure)
        assert len(panels_of(figure)) == len(devices)


@pytest.mark.usefixtures("styled")
def test_points_stand_against_the_identity_and_the_band() -> None:
    figure = scatter(accuracy_rows(10))["accuracy_latency"]
    (panel,) = panels_of(figure)
    assert panel.get_xlabel() == "measured latency (ms)"
    assert panel.get_ylabel() == "predicted latency (ms)"
    assert panel.get_xlim() == panel.get_ylim()
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    identity = panel.lines[0]
    assert list(identity.get_xdata()) == list(identity.get_ydata()) == list(panel.get_xlim())
    points = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in panel.lines[1:])
    assert points == [pytest.approx((r["measured"], r["predicted"])) for r in accuracy_rows(10)]
    band = next(shape for shape in panel.collections if type(shape).__name__.startswith(("Poly", "FillBetween")))
    corners = {(round(y / x, 3)) for x, y in band.get_paths()[0].vertices}
    assert corners == {0.8, 1.2}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*sorted(FAMILIES), "predicted = measured", "\u00b120%"]
    assert accuracy_of(read_accuracy_rows(accuracy_rows(10))).text in words_of(figure)
    assert "measured points: 10, models: 10, families: 5 \u00b7 predictions: leave one out" in words_of(figure)


@pytest.mark.usefixtures("styled")
def test_the_greatest_errors_carry_their_names() -> None:
    rows = accuracy_rows(20)
    rows[7] |= {"predicted": 400.0, "low": None, "model": "the worst"}
    rows[9] |= {"predicted": 129.0, "low": None, "model": "29 % off"}
    figure = scatter(rows)["accuracy_latency"]
    check_layout(figure)
    assert "the worst" in words_of(figure)
    assert "29 % off" in words_of(figure)
    assert rows[3]["model"] not in words_of(figure)


@pytest.mark.usefixtures("styled")
def test_errors_are_sorted_by_family() -> None:
    rows = [row(family=family, predicted=10.0 * ratio, low=None) for family, ratio in
            (("a", 1.5), ("a", 1.5), ("b", 1.0), ("b", 0.9), ("c", 0.5))]  # fmt: skip
    (panel,) = panels_of(errors(rows)["errors_latency"])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["b", "a", "c"]
    notes = [text.get_text() for text in panel.texts if text.get_position()[0] > 1]
    assert notes == ["5.0%, n = 2", "50.0%, n = 2", "50.0%, n = 1"]
    low, high = panel.get_xlim()
    assert low * high == pytest.approx(1)  # as far below as above
    assert low < 0.5 < 2 < high


@pytest.mark.usefixtures("styled")
def test_many_devices_take_pages() -> None:
    assert list(scatter(accuracy_rows(2, tuple(f"cuda:{n}" for n in range(8))))) == [
        "accuracy_latency_page1",
        "accuracy_latency_page2",
    ]


def test_frames_are_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = accuracy_rows(4)
    rows[1]["low"] = rows[2]["measured"] = None
    files = plot_accuracy(pandas.DataFrame(rows), "peak memory", "MiB", tmp_path / "a")
    assert [file.name for file in files] == ["accuracy_peak_memory.png", "errors_peak_memory.png"]
    assert len(read_accuracy_rows(pandas.DataFrame(rows).convert_dtypes())) == 3  # pandas' own NA
    again = plot_accuracy(rows, "peak memory", "MiB", tmp_path / "b")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "rows: there is no row"),
        ("text", "rows: a frame or a list of rows is needed, not str"),
        (3, "rows: a frame or a list of rows is needed, not int"),
        ([1], r"rows\[0\]: a mapping is needed, not int"),
        ([{"predicted": 1}], r"rows\[0\]: measured, low, high, device, family, model is missing"),
        ([row(measured=0)], r"rows\[0\]\.measured: 0 cannot be"),
        ([row(predicted="x")], r"rows\[0\]\.predicted: 'x' is not a number"),
        ([row(low=99)], "low 99 <= predicted 9 <= high 12 does not hold"),
        ([row(measured=None), row(predicted=None)], "no row has both"),
    ],
)
def test_wrong_rows(rows: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_accuracy(rows, "latency", "ms", tmp_path)
