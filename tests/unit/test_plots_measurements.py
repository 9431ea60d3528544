"""Plots of measured points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Noise
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots import plot_measurements
from pytest_hfaccel.predictor.plots.measured_runs import read_runs
from tests.unit.plots_samples import (
    check_axes,
    check_layout,
    needs_matplotlib,
    panels_of,
    sample_measurement,
    sample_measurements,
    words_of,
)

needs_matplotlib()


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    """Our style, for the figures that a test draws."""
    from pytest_hfaccel.predictor.plots.drawing.style import house_style

    with house_style():
        yield


def draw(rows: list[Any], kind: str) -> dict[str, Any]:
    from pytest_hfaccel.predictor.plots.drawing.measured_lines import latency, measured_memory
    from pytest_hfaccel.predictor.plots.drawing.measured_noise import noise
    from pytest_hfaccel.predictor.plots.drawing.measured_throughput import throughput

    kinds = {"latency": latency, "measured_memory": measured_memory, "throughput": throughput, "noise": noise}
    return {name: page.figure for name, page in kinds[kind](read_runs(rows))}


@pytest.mark.parametrize("kind", ["latency", "measured_memory", "throughput", "noise"])
@pytest.mark.parametrize("models", [1, 4, pytest.param(13, marks=pytest.mark.slow)])
def test_all_can_be_read(kind: str, models: int) -> None:
    for figure in draw(sample_measurements(models), kind).values():
        check_layout(figure)
        check_axes(figure)


@pytest.mark.parametrize("kind", ["latency", "measured_memory", "throughput", "noise"])
def test_one_point_can_be_read(kind: str) -> None:
    (figure,) = draw([sample_measurement()], kind).values()
    check_layout(figure)
    check_axes(figure)


def test_files(tmp_path: Path) -> None:
    files = plot_measurements(sample_measurements(1), tmp_path)
    assert [file.name for file in files] == ["latency.png", "measured_memory.png", "throughput.png", "noise.png"]
    unknown = [sample_measurement(memory_bytes=None)]
    assert "measured_memory.png" not in [file.name for file in plot_measurements(unknown, tmp_path)]


def test_latency_by_batch_and_length() -> None:
    figure = draw(sample_measurements(1), "latency")["latency"]
    (panel,) = panels_of(figure)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("batch (samples)", "latency (ms)")
    lines = [line for line in panel.lines if line.get_marker() == "None"]
    assert sorted(tuple(line.get_ydata()) for line in lines) == [
        pytest.approx([factor * batch for batch in (1, 4, 8)]) for factor in (0.128, 0.32, 0.512, 1.28)
    ]
    bars = [part for part in panel.collections if type(part).__name__ == "LineCollection"]
    low, high = bars[0].get_segments()[0][:, 1]
    assert high / low == pytest.approx(1.1 / 0.96)  # 5th and 95th percentile
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["cpu fp32", "openvino:CPU fp32", "32 tokens", "128 tokens"]
    assert "measured points: 12 \u00b7 cpu: Some CPU; openvino:CPU: Some CPU" in words_of(figure)


def test_several_runs_of_a_point_are_one() -> None:
    rows = [sample_measurement(median_ms=median) for median in (10.0, 12.0, 20.0)]
    (panel,) = panels_of(draw(rows, "latency")["latency"])
    line = next(line for line in panel.lines if line.get_marker() == "None")
    assert list(line.get_ydata()) == [12.0]
    ends = panel.collections[-1].get_segments()[0][:, 1]
    assert list(ends) == pytest.approx([9.6, 22.0])


def test_what_differs_stands_apart() -> None:
    rows = [
        sample_measurement(),
        sample_measurement(weights="tiny"),
        sample_measurement(mode="training"),
        sample_measurement(threads=2),
        sample_measurement(dtype="int8", effective_dtype="bf16"),
        sample_measurement(device="webgpu", implementation="emulated", length=0),
    ]
    figure = draw(rows, "latency")["latency"]
    assert len(panels_of(figure)) == 3
    words = words_of(figure)
    for text in (
        "embedding \u00b7 tiny weights \u00b7 inference",
        "embedding \u00b7 random weights \u00b7 training",
        "cpu fp32, 1 threads",
        "cpu fp32, 2 threads",
        "cpu int8 (ran bf16), 1 threads",
        "webgpu fp32, emulated",
        "no text input",
    ):
        assert text in words


def test_memory_stands_above_the_weights() -> None:
    figure = draw(sample_measurements(1), "measured_memory")["measured_memory"]
    (panel,) = panels_of(figure)
    assert panel.get_ylabel() == "peak memory (MiB)"
    assert panel.get_ylim()[0] == 0
    level = next(line for line in panel.lines if list(line.get_xdata()) == [0, 1])
    assert list(level.get_ydata()) == [400, 400]
    assert "weights as loaded" in words_of(figure)
    assert "Read from: VmHWM." in words_of(figure)
    large = draw([sample_measurement(memory_bytes=20 * 2**30)], "measured_memory")["measured_memory"]
    assert panels_of(large)[0].get_ylabel() == "peak memory (GiB)"


def test_throughput_by_device_and_batch() -> None:
    figure = draw(sample_measurements(1), "throughput")["throughput"]
    first, second = panels_of(figure)
    assert first.get_xlabel() == "throughput (samples/s)"
    assert [label.get_text() for label in first.get_yticklabels()] == ["cpu fp32", "openvino:CPU fp32"]
    widths = [patch.get_width() for container in first.containers for patch in container.patches]
    assert widths == pytest.approx([1e3 / 0.32] * 3 + [1e3 / 0.128] * 3)
    whiskers = first.collections[0].get_segments()[0][:, 0]
    assert list(whiskers) == pytest.approx([1e3 / (0.32 * 1.1), 1e3 / (0.32 * 0.96)])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["batch 1", "batch 4", "batch 8"]
    assert "128 tokens" in second.texts[-1].get_text()


def test_noise_shows_spread_error_and_drift() -> None:
    rows = [sample_measurement(), sample_measurement(batch=4, noise=Noise(10.0, 9.0, 0.03, throttled=True))]
    figure = draw(rows, "noise")["noise"]
    spread, error, drift = panels_of(figure)
    assert spread.get_ylabel() == "quartile distance / median (%)"
    points = [list(axes.lines[index].get_ydata()) for axes, index in ((spread, 0), (error, 0), (drift, 1))]
    assert points == [pytest.approx([5, 5]), pytest.approx([0.4, 0.4]), pytest.approx([2, -10])]
    assert list(drift.lines[1].get_xdata()) == pytest.approx([2, 3])
    assert list(drift.lines[-1].get_ydata()) == pytest.approx([-10])  # the ring of the throttled one
    assert "throttled meanwhile" in words_of(figure)
    assert "throttled meanwhile" not in words_of(draw(rows[:1], "noise")["noise"])


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = sample_measurements(2)
    one, two = (plot_measurements(given, tmp_path / n) for n, given in (("a", rows), ("b", rows[::-1])))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "there is no measurement"),
        ("text", "a list of Measurement is needed, not str"),
        (None, "a list of Measurement is needed, not NoneType"),
        ([sample_measurement(), {"model": "a"}], r"measurements\[1\]: a Measurement is needed, not dict"),
    ],
)
def test_wrong_input(rows: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_measurements(rows, tmp_path)
