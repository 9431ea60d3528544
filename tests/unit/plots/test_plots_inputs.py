"""Reading a matrix: what it may lack, and what is a mistake. Needs no matplotlib."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.plots.inputs import MatrixCell, read_matrix
from tests.unit.plots.samples import name_of, sample_matrix


def first_cell(matrix: dict[str, Any], platform: str = "cpu") -> dict[str, Any]:
    cell: dict[str, Any] = matrix["models"][name_of(0)]["predictions"][platform]["1"]["fp32"]
    return cell


def test_a_complete_matrix() -> None:
    table = read_matrix(sample_matrix(7))
    assert len(table.models) == 7
    assert (table.platforms, table.batches, table.precisions) == (
        ["cuda", "cpu", "openvino"],
        [1, 8, 32],
        ["fp32", "fp16"],
    )
    assert (table.extreme_batches, table.cpu) == ([1, 32], "cpu")
    assert table.device_memory == {"cuda": 81920.0, "cpu": 900.0}


@pytest.mark.parametrize(
    ("platforms", "baseline"),
    [
        (("cuda",), None),
        (("openvino:CPU",), None),
        (("cpu:xeon", "cuda", "cpu"), "cpu"),
        (("cuda", "cpu:xeon"), "cpu:xeon"),
    ],
)
def test_the_baseline_is_the_cpu(platforms: tuple[str, ...], baseline: str | None) -> None:
    cell = {"1": {"fp32": {"throughput": 1.0}}}
    matrix = {"models": {"a": {"predictions": dict.fromkeys(platforms, cell)}}, "hardware_platforms": list(platforms)}
    assert read_matrix(matrix).cpu == baseline


def test_models_are_sorted_by_family_and_in_it_the_fastest_first() -> None:
    table = read_matrix(sample_matrix(15))
    families = [model.family for model in table.models]
    assert families == sorted(families)
    for family in set(families):
        speeds = [model.cell("cpu", 1, "fp32").throughput for model in table.models if model.family == family]
        numbers = [speed.value for speed in speeds if speed]
        assert len(numbers) == 3
        assert numbers == sorted(numbers, reverse=True)


def test_the_interval_of_the_throughput_is_that_of_the_latency_turned_round() -> None:
    cell = read_matrix(sample_matrix(1)).models[0].cell("cpu", 8, "fp32")
    assert cell.latency is not None
    assert cell.throughput is not None
    assert cell.throughput.low == pytest.approx(8e3 / (1.25 * cell.latency.value))
    assert cell.throughput.high == pytest.approx(8e3 / (0.8 * cell.latency.value))


def test_the_format_of_the_guide_is_enough() -> None:
    plain = {"throughput": 120.5, "latency_mean": 8.3, "memory_usage": 850.2}
    table = read_matrix({"models": {"bert": {"predictions": {"cuda": {"1": {"fp32": plain}}}}}})
    model = table.models[0]
    assert (model.name, model.family) == ("bert", "unknown family")
    cell = model.cell("cuda", 1, "fp32")
    assert cell.throughput is not None
    assert (cell.throughput.value, cell.throughput.low, cell.source, cell.fits) == (120.5, None, "", None)


def test_what_is_missing_is_not_known() -> None:
    matrix = sample_matrix(1)
    predictions = matrix["models"][name_of(0)]["predictions"]
    predictions["cpu"]["1"]["fp32"] = None
    predictions["cpu"]["8"] = None
    predictions["openvino"] = None
    predictions["cuda"]["1"]["fp32"]["throughput"] = float("nan")
    model = read_matrix(matrix).models[0]
    assert (
        model.cell("cpu", 1, "fp32")
        == model.cell("cpu", 8, "fp16")
        == model.cell("openvino", 1, "fp32")
        == MatrixCell()
    )
    assert model.cell("cuda", 1, "fp32").throughput is None
    assert model.cell("cuda", 1, "fp32").latency is not None


def test_batches_may_be_numbers() -> None:
    matrix = {"models": {"a": {"predictions": {"cpu": {1: {"fp32": {"throughput": 1}}}}}}}
    assert read_matrix(matrix).batches == [1]


def test_all_mistakes_are_told_with_their_places() -> None:
    matrix = sample_matrix(1)
    first_cell(matrix).update(throughput=-3, latency_mean="fast", memory_low=9e9, fits="perhaps")
    matrix["models"][name_of(0)]["predictions"]["cpu"]["many"] = {}
    with pytest.raises(ConfigError) as caught:
        read_matrix(matrix)
    place = f"matrix.models['{name_of(0)}'].predictions['cpu']"
    for line in (
        f"{place}['1']['fp32'].throughput: -3 cannot be: allowed are finite numbers > 0.",
        f"{place}['1']['fp32'].latency_mean: 'fast' is not a number.",
        f"{place}['1']['fp32']: memory_low 9e+09 <= memory_usage 110 <= memory_high 121 does not hold.",
        f"{place}['1']['fp32'].fits: 'perhaps' is neither true, false nor null.",
        f"{place}['many']: the key must be a batch size: a whole number > 0.",
        "create_hardware_prediction_matrix",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ([], "matrix: a mapping is needed, not list"),
        ({}, "matrix.models: there is no model"),
        ({"models": {"a": 3}}, r"matrix.models\['a'\]: a mapping is needed, not int"),
        ({"models": {"a": {"predictions": {}}}}, "matrix: no cell has a number"),
        ({"models": {"a": {"predictions": {"cpu": {"1": {"fp32": {}}}}}}}, "matrix: no cell has a number"),
        ({"models": {"a": {"predictions": {"cpu": {"1": {"fp32": {"throughput": True}}}}}}}, "True is not a number"),
        ({"models": {"a": {}}, "devices": {"cpu": {"memory_mb": 0}}}, r"devices\['cpu'\].memory_mb: 0 cannot be"),
        ({"models": {"a": {}}, "hardware_platforms": "cpu"}, "matrix.hardware_platforms: a list is needed, not str"),
    ],
)
def test_wrong_input(matrix: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_matrix(matrix)


def test_many_mistakes_are_counted() -> None:
    matrix = sample_matrix(5)
    for model in matrix["models"].values():
        for batches in model["predictions"].values():
            for precisions in batches.values():
                for cell in precisions.values():
                    cell["throughput"] = 0
    with pytest.raises(ConfigError, match="and 70 more"):
        read_matrix(matrix)


def test_importing_the_plots_imports_nothing_heavy() -> None:
    heavy = "{'matplotlib', 'seaborn', 'pandas', 'numpy', 'torch'}"
    code = f"import sys, pytest_hfaccel.plots; print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
