"""What the files hold that are drawn: their names, their words, and that the same input gives the same bytes."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Noise
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.plots import plot_accuracy, plot_matrix, plot_measurements, plot_roofline
from tests.unit.plots.samples import (
    PLATFORMS,
    accuracy_rows,
    name_of,
    needs_matplotlib,
    roofline_points,
    sample_matrix,
    sample_measurement,
    sample_measurements,
    words_of,
)

needs_matplotlib()


def words(files: list[Path]) -> dict[str, str]:
    """The words of each file, by its name without suffix; lines are joined, for captions are wrapped."""
    return {file.stem: " ".join(words_of(file).split()) for file in files}


def hide(matrix: dict[str, Any], model: int, platform: str, batch: str = "1") -> dict[str, Any]:
    """The matrix with one cell less."""
    changed = copy.deepcopy(matrix)
    changed["models"][name_of(model)]["predictions"][platform][batch]["fp32"] = None
    return changed


def small(models: int = 1, **changed: Any) -> dict[str, Any]:
    return sample_matrix(models, **{"batches": (1, 8), "precisions": ("fp32",), **changed})


GUIDE: dict[str, Any] = {
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


@pytest.mark.slow
def test_the_example_of_the_guide(tmp_path: Path) -> None:
    files = plot_matrix(json.loads(json.dumps(GUIDE)), tmp_path / "new" / "directory")
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


def test_a_matrix_in_words(tmp_path: Path) -> None:
    matrix = hide(small(2), 0, "openvino")
    matrix["models"][name_of(0)]["predictions"]["cuda"]["1"]["fp32"]["fits"] = False
    drawn = words(plot_matrix(matrix, tmp_path, suffix=".svg"))
    assert list(drawn) == ["hardware_comparison_fp32", "batch_scaling_fp32", "efficiency_fp32", "memory_fp32"]
    comparison = drawn["hardware_comparison_fp32"]
    for text in (
        *PLATFORMS,
        "fp32 \u00b7 inference \u00b7 matrix of 2026-03-02T00:00:00Z \u00b7 cuda: NVIDIA H100; cpu: Some CPU",
        "embedding \u00b7 batch 1",
        "throughput (samples/s)",
        "100 (80\u2013125)",
        "does not fit",
        "not known",
        "predicted, or the source is not stated",
        "Intervals are meant to hold 80% of measured values. Numbers: 6 calibrated, 4 measured.",
    ):
        assert text in comparison, text
    # 1,000 ms x 40 / 10 ms at batch 8; the interval of a ratio holds every ratio of the two intervals.
    assert "40\u00d7 (25.6\u201362.5)" in drawn["efficiency_fp32"]
    assert "calibrated over measured" in drawn["efficiency_fp32"]
    assert "110\u2013180 of 81.9k MiB" in drawn["memory_fp32"]
    assert "latency (ms)" in drawn["batch_scaling_fp32"]


def test_precision_is_relative_to_fp32(tmp_path: Path) -> None:
    matrix = small(precisions=("fp16", "fp32", "int8"), batches=(1,), platforms=("cpu",))
    drawn = words(plot_matrix(matrix, tmp_path, suffix=".svg"))["precision_impact_batch1"]
    for text in ("cpu fp16", "cpu int8", "1.41\u00d7", "0.25\u00d7", "throughput / that at fp32 (\u00d7)"):
        assert text in drawn


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"batches": (8,)}, "batch_scaling"),
        ({"platforms": ("cuda", "openvino")}, "efficiency"),
        ({"platforms": ("cpu",)}, "efficiency"),
        ({"precisions": ("fp16",)}, "precision_impact"),
    ],
)
def test_a_plot_without_a_comparison_is_left_out(changed: dict[str, Any], kind: str, tmp_path: Path) -> None:
    files = plot_matrix(small(**{"batches": (8,), "platforms": ("cpu", "cuda"), **changed}), tmp_path, suffix=".svg")
    assert files
    assert not [file for file in files if file.name.startswith(kind)]


def test_a_model_without_a_number_is_only_named(tmp_path: Path) -> None:
    matrix = small(3, batches=(1,))
    matrix["models"][name_of(1)]["predictions"] = {}
    drawn = words(plot_matrix(matrix, tmp_path, suffix=".svg"))["hardware_comparison_fp32"]
    assert f"Without a number here: {name_of(1)[:20]}" in drawn


@pytest.mark.slow
def test_many_models_become_rows_of_pages(tmp_path: Path) -> None:
    matrix = hide(sample_matrix(45, ("cpu", "cuda"), (1,), ("fp32",)), 0, "cuda")
    drawn = words(plot_matrix(matrix, tmp_path, suffix=".svg"))
    assert list(drawn)[:2] == ["hardware_comparison_fp32_page1", "hardware_comparison_fp32_page2"]
    first, second = list(drawn.values())[:2]
    assert "page 1 of 2" in first
    assert "AUDIO" in first
    assert "\u25cf 100" in first + second  # the CPU was measured
    assert "not known" in first + second
    assert sum(drawn[page].count("TinyLlama/") for page in list(drawn)[:2]) == 9


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_long_and_odd_names(tmp_path: Path) -> None:
    matrix = small(1, platforms=("cpu",), batches=(1,))
    odd = ["_hidden", "costs $5 and $6", "x" * 300, "two\nlines", "\u540d\u524d/\u6a21\u578b", "{curly}%s\\n", "a<b>&c"]
    for name in odd:
        matrix["models"][name] = {**matrix["models"][name_of(0)], "name": name}
    drawn = words(plot_matrix(matrix, tmp_path, suffix=".svg"))["hardware_comparison_fp32"]
    for name in ("_hidden", "costs $5 and $6", "two lines", "{curly}%s\\n", "a<b>&c"):
        assert name in drawn
    assert "x" * 61 not in drawn


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_input_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path, suffix: str) -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    matrix = small(1, platforms=("cpu", "cuda"), batches=(1,))
    first = plot_matrix(matrix, tmp_path / "a", suffix=suffix)
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black", "savefig.dpi": 20}):
        before = dict(matplotlib.rcParams)
        second = plot_matrix(matrix, tmp_path / "b", suffix=suffix)
        assert dict(matplotlib.rcParams) == before
    assert [file.name for file in first] == [file.name for file in second]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    assert plt.get_fignums() == []


def test_an_older_plot_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "memory_fp32.png").write_text("old")
    plot_matrix(small(1, platforms=("cpu",), batches=(1,)), tmp_path)
    assert (tmp_path / "memory_fp32.png").read_bytes().startswith(b"\x89PNG")


def test_measurements(tmp_path: Path) -> None:
    files = plot_measurements(sample_measurements(1), tmp_path, suffix=".svg")
    assert [file.stem for file in files] == ["latency", "measured_memory", "throughput", "noise"]
    drawn = words(files)
    for text in ("cpu fp32", "openvino:CPU fp32", "32 tokens", "128 tokens", "latency (ms)", "batch (samples)"):
        assert text in drawn["latency"]
    assert "measured points: 12 \u00b7 cpu: Some CPU; openvino:CPU: Some CPU" in drawn["latency"]
    assert "Read from: VmHWM." in drawn["measured_memory"]
    assert "peak memory (MiB)" in drawn["measured_memory"]
    assert "throughput (samples/s)" in drawn["throughput"]
    assert "quartile distance / median (%)" in drawn["noise"]
    unknown = plot_measurements([sample_measurement(memory_bytes=None)], tmp_path / "unknown", suffix=".svg")
    assert "measured_memory" not in [file.stem for file in unknown]


def test_what_was_measured_otherwise_stands_apart(tmp_path: Path) -> None:
    rows = [
        sample_measurement(),
        sample_measurement(weights="tiny", memory_bytes=20 * 2**30),
        sample_measurement(mode="training", noise=Noise(10.0, 9.0, 0.03, throttled=True)),
        sample_measurement(threads=2),
        sample_measurement(dtype="int8", effective_dtype="bf16"),
        sample_measurement(device="webgpu", implementation="emulated", length=0),
    ]
    drawn = words(plot_measurements(rows, tmp_path / "a", suffix=".svg"))
    for text in (
        "embedding \u00b7 tiny weights \u00b7 inference",
        "embedding \u00b7 random weights \u00b7 training",
        "cpu fp32, 1 threads",
        "cpu fp32, 2 threads",
        "cpu int8 (ran bf16), 1 threads",
        "webgpu fp32, emulated",
        "no text input",
    ):
        assert text in drawn["latency"], text
    assert "peak memory (GiB)" in drawn["measured_memory"]
    assert "throttled during the runs" in drawn["noise"]
    again = plot_measurements(rows[::-1], tmp_path / "b", suffix=".svg")
    assert words(again) == drawn


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "there is no measurement"),
        ("text", "a list of Measurement is needed, not str"),
        (None, "a list of Measurement is needed, not NoneType"),
        ([sample_measurement(), {"model": "a"}], r"measurements\[1\]: a Measurement is needed, not dict"),
    ],
)
def test_no_measurements(rows: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_measurements(rows, tmp_path)


def test_accuracy(tmp_path: Path) -> None:
    rows = accuracy_rows(20)
    rows[7] |= {"predicted": 400.0, "low": None, "model": "the worst"}
    drawn = words(plot_accuracy(rows, "latency", "ms", tmp_path, source="leave one out", suffix=".svg"))
    assert list(drawn) == ["accuracy_latency", "errors_latency"]
    points = drawn["accuracy_latency"]
    for text in ("measured latency (ms)", "predicted latency (ms)", "the worst", "\u00b120%", "n = 20, MAPE"):
        assert text in points
    assert "measured points: 20, models: 20, families: 5 \u00b7 predictions: leave one out" in points
    assert rows[3]["model"] not in points
    assert "predicted / measured (\u00d7, 1 is right)" in drawn["errors_latency"]


def test_the_measures_of_accuracy() -> None:
    from pytest_hfaccel.plots.accuracy import accuracy_text
    from pytest_hfaccel.plots.inputs import read_accuracy_rows

    # Ratios 0.9, 1.0, 1.1 in turn; the interval holds every measured number.
    text = accuracy_text(read_accuracy_rows(accuracy_rows(9)))
    assert text == "n = 9, MAPE 6.7%, Spearman 0.983, coverage 100%"
    half_known = [{**accuracy_rows(1)[0], "low": None}, {**accuracy_rows(1)[0], "high": None}]
    text = accuracy_text(read_accuracy_rows(half_known))
    assert text == "n = 2, MAPE 10.0%, Spearman n/a, coverage n/a"


def test_errors_are_sorted_by_family(tmp_path: Path) -> None:
    first = accuracy_rows(1)[0]
    rows = [{**first, "family": family, "predicted": 10.0 * ratio, "low": None}
            for family, ratio in (("a", 1.5), ("a", 1.5), ("b", 1.0), ("b", 0.9), ("c", 0.5))]  # fmt: skip
    drawn = words(plot_accuracy(rows, "latency", "ms", tmp_path, suffix=".svg"))["errors_latency"]
    assert drawn.index("5.0%, n = 2") < drawn.index("50.0%, n = 2") < drawn.index("50.0%, n = 1")


def test_many_devices_take_pages(tmp_path: Path) -> None:
    rows = accuracy_rows(2, tuple(f"cuda:{n}" for n in range(8)))
    files = plot_accuracy(rows, "latency", "ms", tmp_path, suffix=".svg")
    assert [file.stem for file in files] == [
        "accuracy_latency_page1",
        "accuracy_latency_page2",
        "errors_latency_page1",
        "errors_latency_page2",
    ]


def test_frames_are_rows(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = accuracy_rows(4)
    rows[1]["low"] = rows[2]["measured"] = None
    files = plot_accuracy(pandas.DataFrame(rows).convert_dtypes(), "peak memory", "MiB", tmp_path / "a", suffix=".svg")
    assert [file.name for file in files] == ["accuracy_peak_memory.svg", "errors_peak_memory.svg"]
    again = plot_accuracy(rows, "peak memory", "MiB", tmp_path / "b", suffix=".svg")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "rows: there is no row"),
        ([{"predicted": 1}], r"rows\[0\]: measured, low, high, device, family, model is missing"),
        ([{**accuracy_rows(1)[0], "measured": None}], "no row has both"),
        ([{**accuracy_rows(1)[0], "measured": -1}], "measured: -1 cannot be"),
    ],
)
def test_no_accuracy(rows: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_accuracy(rows, "latency", "ms", tmp_path)


def test_roofline(tmp_path: Path) -> None:
    points = roofline_points(14)
    points[0] |= {"seconds": 1e-3, "source": None}
    (file,) = plot_roofline(points, 100e9, 10e9, "../a/b", tmp_path, suffix=".svg")
    assert file.parent == tmp_path
    (drawn,) = words([file]).values()
    for text in (
        "Roofline of ../a/b",
        "peak 100 GFLOP/s, 10 GB/s \u00b7 source of the roof not stated",
        "ridge at 10 FLOP/byte",
        "operational intensity (FLOP per byte moved)",
        "performance (FLOP/s)",
        "median 50%",
        "1 above the roof",
        "of a source that is not stated",
        name_of(0),
    ):
        assert text in drawn, text
    assert all(f" {number} " in f" {drawn} " for number in range(1, 15))


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
def test_no_roofline(points: Any, roof: tuple[Any, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        plot_roofline(points, *roof, "Some CPU", tmp_path)


def test_the_old_import_path_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"import pytest_hfaccel\.(predict|plots)\."):
        old = importlib.import_module("pytest_hfaccel.predictor.plots")
    assert old.plot_roofline is plot_roofline
