"""Plots of a matrix: what the figures hold, and that they can be read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.predictor.plots import plot_matrix
from pytest_hfaccel.predictor.plots.matrix_reading import read_matrix
from tests.unit.plots_samples import (
    PLATFORMS,
    check_axes,
    check_layout,
    name_of,
    needs_matplotlib,
    panels_of,
    sample_matrix,
    texts_of,
    words_of,
)

needs_matplotlib()

KINDS = ("hardware_comparison", "batch_scaling", "efficiency", "memory", "precision_impact")
EVERYWHERE = ("cuda", "rocm", "mps", "openvino", "cpu", "webgpu", "webnn")

Draw = Callable[..., dict[str, Any]]


@pytest.fixture
def draw() -> Iterator[Draw]:
    """Draws kinds of plots of a matrix: figures by the names of their files."""
    from importlib import import_module

    from pytest_hfaccel.predictor.plots.drawing.style import house_style

    def draw(matrix: dict[str, Any], *kinds: str) -> dict[str, Any]:
        table = read_matrix(matrix)
        figures = {}
        for kind in kinds:
            module = import_module(f"pytest_hfaccel.predictor.plots.drawing.{kind}")
            figures.update({name: page.figure for name, page in getattr(module, kind)(table)})
        return figures

    with house_style():
        yield draw


def hide(
    matrix: dict[str, Any], model: int, platform: str, batch: str = "1", precision: str = "fp32"
) -> dict[str, Any]:
    """The matrix with one cell less."""
    changed = copy.deepcopy(matrix)
    changed["models"][name_of(model)]["predictions"][platform][batch][precision] = None
    return changed


def bars(axes: Any) -> list[Any]:
    return [patch for container in axes.containers for patch in container.patches]


def notes(axes: Any) -> list[str]:
    """The numbers beside the bars."""
    return [text.get_text() for text in axes.texts if text.get_position()[0] > 1]


# Layout: nothing is cut and nothing overlaps, from one model to many.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("models", [1, 4, pytest.param(11, marks=pytest.mark.slow)])
def test_few_models_can_be_read(draw: Draw, kind: str, models: int) -> None:
    matrix = hide(sample_matrix(models), 0, "openvino")
    for figure in draw(matrix, kind).values():
        check_layout(figure)
        check_axes(figure)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_many_models_on_many_platforms_can_be_read(draw: Draw, kind: str) -> None:
    matrix = sample_matrix(
        50, EVERYWHERE, (1, 4, 8, 16, 32), ("fp32",) if kind == "batch_scaling" else ("fp32", "int8")
    )
    figures = draw(hide(matrix, 3, "mps"), kind)
    assert len(figures) >= 4
    for figure in figures.values():
        check_layout(figure)


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")  # the figures are drawn here, not by `Page.save`
def test_long_and_odd_names_can_be_read(draw: Draw) -> None:
    matrix = sample_matrix(1, ("cpu", "cuda"), (1, 8))
    odd = ["_hidden", "costs $5 and $6", "x" * 300, "two\nlines", "\u540d\u524d/\u6a21\u578b", "{curly}%s\\n"]
    for name in odd:
        matrix["models"][name] = {**matrix["models"][name_of(0)], "name": name, "category": "a_family_of_its_own" * 5}
    for figure in draw(matrix, *KINDS).values():
        check_layout(figure)


@pytest.mark.parametrize("place", [(0.95, 0.5), (0.1, 0.5)])
def test_the_check_of_the_layout_can_fail(place: tuple[float, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    figure.text(0.1, 0.49, "some text")
    figure.text(0.1, 0.9, "other text")
    check_layout(figure)
    figure.text(*place, "more text")
    with pytest.raises(AssertionError, match="cut" if place[0] > 0.5 else "overlaps"):
        check_layout(figure)


# Files


def test_the_example_of_the_guide(tmp_path: Path) -> None:
    matrix = {
        "timestamp": "2025-03-02T00:00:00Z",
        "mode": "inference",
        "models": {
            "bert-base-uncased": {
                "name": "bert-base-uncased",
                "category": "embedding",
                "predictions": {
                    "cuda": {
                        "1": {
                            "fp32": {"throughput": 120.5, "latency_mean": 8.3, "memory_usage": 850.2},
                            "fp16": {"throughput": 180.3, "latency_mean": 5.5, "memory_usage": 425.1},
                        },
                        "8": {"fp32": {"throughput": 350.4, "latency_mean": 22.8, "memory_usage": 1250.5}},
                    },
                    "cpu": {"1": {"fp32": {"throughput": 25.3, "latency_mean": 39.5, "memory_usage": 800.1}}},
                },
            }
        },
        "hardware_platforms": ["cuda", "cpu", "openvino"],
        "batch_sizes": [1, 8, 32],
        "precision_options": ["fp32", "fp16"],
    }
    files = plot_matrix(json.loads(json.dumps(matrix)), tmp_path / "new" / "directory")
    assert [file.name for file in files] == [
        "hardware_comparison_fp32.png",
        "hardware_comparison_fp16.png",
        "batch_scaling_fp32.png",
        "batch_scaling_fp16.png",
        "efficiency_fp32.png",
        "memory_fp32.png",
        "memory_fp16.png",
        "precision_impact_batch1.png",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert sorted(path.name for path in (tmp_path / "new" / "directory").iterdir()) == sorted(f.name for f in files)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    matrix = sample_matrix(1, ("cpu", "cuda"), (1, 8), ("fp32",))
    first, second = (plot_matrix(matrix, tmp_path / name, suffix=suffix) for name in ("a", "b"))
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert all(b"matplotlib" not in file.read_bytes()[:500].lower() or suffix == ".svg" for file in first)


def test_the_users_settings_neither_matter_nor_change(tmp_path: Path) -> None:
    import matplotlib

    matrix = sample_matrix(1, ("cpu", "cuda"), (1,), ("fp32",))
    expected = [file.read_bytes() for file in plot_matrix(matrix, tmp_path / "a")]
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black", "savefig.dpi": 20}):
        before = dict(matplotlib.rcParams)
        got = [file.read_bytes() for file in plot_matrix(matrix, tmp_path / "b")]
        assert dict(matplotlib.rcParams) == before
    assert got == expected


def test_no_global_figure_is_made(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    plot_matrix(sample_matrix(1, ("cpu",), (1,), ("fp32",)), tmp_path)
    assert plt.get_fignums() == []


def test_an_older_plot_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "memory_fp32.png").write_text("old")
    plot_matrix(sample_matrix(1, ("cpu",), (1,), ("fp32",)), tmp_path)
    assert (tmp_path / "memory_fp32.png").read_bytes().startswith(b"\x89PNG")


# What is left out


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"batches": (8,)}, "batch_scaling"),
        ({"platforms": ("cuda", "openvino")}, "efficiency"),
        ({"platforms": ("cpu",)}, "efficiency"),
        ({"precisions": ("fp16",)}, "precision_impact"),
    ],
)
def test_a_plot_without_a_comparison_is_left_out(draw: Draw, changed: dict[str, Any], kind: str) -> None:
    assert draw(sample_matrix(1, **changed), kind) == {}
    assert draw(sample_matrix(1), kind) != {}


def test_a_model_without_a_number_is_only_named(draw: Draw) -> None:
    matrix = sample_matrix(3, batches=(1,), precisions=("fp32",))
    matrix["models"][name_of(1)]["predictions"] = {}
    figure = draw(matrix, "hardware_comparison")["hardware_comparison_fp32"]
    assert len(panels_of(figure)) == 2
    assert f"Without a number here: {name_of(1)}." in words_of(figure).replace("\n", " ")


# What is shown


def test_bars_are_the_throughput_with_its_interval(draw: Draw) -> None:
    figure = draw(sample_matrix(1, precisions=("fp32",)), "hardware_comparison")["hardware_comparison_fp32"]
    first, second = panels_of(figure)
    assert [axes.get_xlabel() for axes in (first, second)] == ["throughput (samples/s)"] * 2
    assert [label.get_text() for label in first.get_yticklabels()] == list(PLATFORMS)
    assert [bar.get_width() for bar in bars(first)] == pytest.approx([4000, 100, 200])
    assert notes(first) == ["4,000 (3,200\u20135,000)", "100 (80\u2013125)", "200 (160\u2013250)"]
    (whiskers,) = first.collections
    assert [segment[:, 0].tolist() for segment in whiskers.get_segments()] == [
        pytest.approx(ends) for ends in ([3200, 5000], [80, 125], [160, 250])
    ]
    details = [axes.texts[-1].get_text() for axes in (first, second)]
    assert details == ["embedding \u00b7 batch 1", "embedding \u00b7 batch 32"]


def test_only_what_was_measured_is_solid(draw: Draw) -> None:
    figure = draw(sample_matrix(1), "hardware_comparison")["hardware_comparison_fp32"]
    opacity = [bar.get_facecolor()[3] for bar in bars(panels_of(figure)[0])]
    assert opacity[1] == 1
    assert opacity[0] == opacity[2] < 1
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["measured", "predicted, or the source is not stated"]
    assert "Numbers: 4 calibrated, 2 measured." in words_of(figure)


def test_missing_and_too_large_are_told_apart(draw: Draw) -> None:
    matrix = hide(hide(sample_matrix(1, precisions=("fp32",)), 0, "openvino"), 0, "cpu", "8")
    matrix["models"][name_of(0)]["predictions"]["cuda"]["1"]["fp32"]["fits"] = False
    figures = draw(matrix, "hardware_comparison", "batch_scaling", "efficiency")
    panel = panels_of(figures["hardware_comparison_fp32"])[0]
    assert notes(panel) == ["does not fit", "100 (80\u2013125)", "not known"]
    assert len(bars(panel)) == 1
    lines = panels_of(figures["batch_scaling_fp32"])[0].lines
    drawn = [line.get_xdata().tolist() for line in lines if len(line.get_xdata()) and line.get_linestyle() != "None"]
    assert drawn == [[8.0, 32.0], [1.0], [32.0], [8.0, 32.0]]  # cuda, cpu (broken), openvino
    texts = words_of(figures["efficiency_fp32"])
    assert "does not fit" in texts
    assert "not known" in texts


def test_lines_show_throughput_and_latency_on_logarithmic_axes(draw: Draw) -> None:
    figure = draw(sample_matrix(1, precisions=("fp32",)), "batch_scaling")["batch_scaling_fp32"]
    throughput, latency = panels_of(figure)
    assert throughput.get_ylabel() == "throughput (samples/s)"
    assert latency.get_ylabel() == "latency (ms)"
    assert latency.get_xlabel() == "batch (samples)"
    assert {latency.get_xscale(), latency.get_yscale()} == {"log"}
    assert [label.get_text() for label in latency.get_xticklabels()] == ["1", "8", "32"]
    cpu = next(line for line in latency.lines if line.get_ydata()[0] == pytest.approx(10.0))
    assert cpu.get_ydata().tolist() == pytest.approx([10, 80, 320])
    assert len(latency.collections) == 2 * len(PLATFORMS)  # a band and bars for each
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:3] == list(PLATFORMS)
    assert {line.get_marker() for line in figure.legends[0].get_lines()[:3]} == {"o", "s", "^"}


def test_efficiency_is_relative_to_the_cpu_of_the_same_batch(draw: Draw) -> None:
    figure = draw(sample_matrix(1, precisions=("fp32",)), "efficiency")["efficiency_fp32"]
    panel = panels_of(figure)[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["cuda", "openvino"]
    assert [bar.get_x() + bar.get_width() for bar in bars(panel)] == pytest.approx([40, 2])
    assert notes(panel) == ["40\u00d7 (25.6\u201362.5)", "2\u00d7 (1.28\u20133.12)"]
    assert panel.get_xscale() == "log"
    assert "4 calibrated over measured" in words_of(figure)


def test_memory_stands_beside_that_of_the_device(draw: Draw) -> None:
    figure = draw(sample_matrix(3, precisions=("fp32",)), "memory")["memory_fp32"]
    panel = panels_of(figure)[-1]
    assert panel.get_xlabel() == "peak memory (MiB)"
    assert len(bars(panel)) == len(PLATFORMS) * 3
    # 300 MiB x (1 + 0.1 x batch): at batch 32 it is more than the CPU's 900 MiB.
    assert notes(panel) == ["330\u20131,260 of 81.9k MiB", "330\u20131,260 of 900 MiB", "330\u20131,260 MiB"]
    warned = [text.get_text() for text in texts_of(figure) if text.get_color() == "#b00020"]
    assert warned == []  # the cells say that they fit
    limits = [line for line in panel.collections if line.get_linestyle()[0][1]]
    assert [line.get_segments()[0][0][0] for line in limits] == [900]


def test_memory_that_does_not_fit_is_marked(draw: Draw) -> None:
    matrix = sample_matrix(3, precisions=("fp32",))
    for batches in matrix["models"][name_of(2)]["predictions"].values():
        for precisions in batches.values():
            precisions["fp32"]["fits"] = None  # then the numbers decide
    figure = draw(matrix, "memory")["memory_fp32"]
    warned = [text.get_text() for text in texts_of(figure) if text.get_color() == "#b00020"]
    assert warned == ["330\u20131,260 of 900 MiB"]


def test_precision_is_relative_to_fp32(draw: Draw) -> None:
    figures = draw(sample_matrix(1, batches=(1, 8), precisions=("fp16", "fp32", "int8")), "precision_impact")
    assert list(figures) == ["precision_impact_batch1", "precision_impact_batch8"]
    speed, memory = panels_of(figures["precision_impact_batch8"])
    assert [label.get_text() for label in speed.get_yticklabels()][:2] == ["cuda fp16", "cuda int8"]
    assert [bar.get_x() + bar.get_width() for bar in bars(speed)] == pytest.approx([2**0.5, 2.0] * 3)
    assert [bar.get_x() + bar.get_width() for bar in bars(memory)] == pytest.approx([0.5, 0.25] * 3)
    assert speed.get_xlabel() == "throughput / that at fp32 (\u00d7)"


# Heat maps


def test_many_models_become_rows_under_their_families(draw: Draw) -> None:
    matrix = hide(sample_matrix(14, precisions=("fp32",)), 0, "openvino")
    matrix["models"][name_of(1)]["predictions"]["cuda"]["1"]["fp32"]["fits"] = False
    figure = draw(matrix, "hardware_comparison")["hardware_comparison_fp32"]
    first, second, bar = figure.axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert len(labels) == 14 + 5
    assert labels[0] == "audio"
    assert [label.get_text() for label in first.get_xticklabels()] == list(PLATFORMS)
    assert bar.get_ylabel() == "throughput (samples/s)"
    texts = [text.get_text() for text in first.texts]
    assert len(texts) == 14 * 3 + 1
    assert texts.count("not known") == 1
    assert texts.count("does not fit") == 1
    assert sum(text.startswith("\u25cf") for text in texts) == 14  # the CPU was measured
    assert "\u25cf 100\n(80\u2013125)" in texts
    assert first.collections[0].norm.vmin == second.collections[0].norm.vmin
    frames = [patch for patch in first.patches if not patch.get_fill()]
    assert len(frames) == 1


def test_pages_share_their_colours(draw: Draw) -> None:
    figures = draw(sample_matrix(45, batches=(1,), precisions=("fp32",)), "hardware_comparison")
    assert list(figures) == ["hardware_comparison_fp32_page1", "hardware_comparison_fp32_page2"]
    norms = [figure.axes[0].collections[0].norm for figure in figures.values()]
    assert norms[0].vmin == norms[1].vmin
    assert norms[0].vmax == norms[1].vmax
    shown = [label.get_text() for figure in figures.values() for label in figure.axes[0].get_yticklabels()]
    assert len([name for name in shown if name not in ("audio", "embedding", "vision")]) >= 45


def test_ratios_have_their_own_colours_on_both_sides_of_one(draw: Draw) -> None:
    norm = draw(sample_matrix(14, precisions=("fp32",)), "efficiency")["efficiency_fp32"].axes[0].collections[0].norm
    assert norm(1.0) == pytest.approx(0.5)


def test_text_is_dark_on_light_colours_and_light_on_dark_ones(draw: Draw) -> None:
    axes = draw(sample_matrix(14, precisions=("fp32",)), "hardware_comparison")["hardware_comparison_fp32"].axes[0]
    colours = {text.get_text().split("\n")[0]: text.get_color() for text in axes.texts}
    assert colours["4,000"] == "white"
    assert colours["\u25cf 7.14"] == "#222222"


def test_the_same_kind_of_hardware_has_the_same_colour_in_every_matrix() -> None:
    from pytest_hfaccel.predictor.plots.drawing.style import COLOURS, hardware_colours

    one, two = hardware_colours(["cuda", "cpu"]), hardware_colours(["tpu", "cpu", "cuda:1", "cuda:0", "openvino:CPU"])
    assert one["cpu"] == two["cpu"]
    assert one["cuda"] == two["cuda:1"]
    assert len(set(two.values())) == 5
    assert list(two) == ["tpu", "cpu", "cuda:1", "cuda:0", "openvino:CPU"]
    assert len(hardware_colours([f"device{index}" for index in range(20)])) == 20 > len(COLOURS)
