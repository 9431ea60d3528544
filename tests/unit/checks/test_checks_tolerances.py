"""The table of tolerances against the one in the design."""

from __future__ import annotations

import pytest

from pytest_hfaccel.checks.tolerances import Tolerance, is_exported, tolerance_of
from pytest_hfaccel.spec import Cell, Device, ModelSpec, Weights, WeightsChoice

_MODEL = ModelSpec("bert", "BertForMaskedLM", "fill-mask")


def _cell(dtype: str, device: str = "cpu", weights: Weights = Weights.TINY) -> Cell:
    return Cell(_MODEL, Device.parse(device), dtype, WeightsChoice(weights, ""))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (_cell("fp32"), (1e-4, 1e-5, 1e-5)),
        (_cell("fp32", "openvino:CPU"), (1e-4, 1e-5, 2e-5)),
        (_cell("fp32", weights=Weights.PRETRAINED), (1e-4, 1e-5, 2e-5)),
        (_cell("fp32", weights=Weights.RANDOM), (1e-4, 1e-5, 2e-5)),
        (_cell("fp16", "cuda:0"), (5e-3, 5e-3, 5e-3)),
        (_cell("bf16", "cuda:0"), (1.6e-2, 1e-2, 2e-2)),
        (_cell("int8", "openvino:CPU"), (None, None, 0.10)),
    ],
    ids=str,
)
def test_each_dtype_has_its_row(asked: Cell, expected: tuple[float, float, float]) -> None:
    row = tolerance_of(asked)
    assert (row.rtol, row.atol, row.rel_l2) == expected


def test_int8_asks_for_the_same_best_answer_only_of_trained_weights() -> None:
    assert tolerance_of(_cell("int8")) == Tolerance(rel_l2=0.10, cosine=0.995, second_chance=False)
    assert tolerance_of(_cell("int8", weights=Weights.PRETRAINED)).top1 == 0.9


@pytest.mark.parametrize(
    ("device", "exported"),
    [("cpu", False), ("cuda:0", False), ("mps", False), ("openvino:CPU", True), ("webgpu", True), ("wasm", True)],
)
def test_a_device_with_a_converter_runs_an_exported_graph(device: str, exported: bool) -> None:
    assert is_exported(_cell("fp32", device)) is exported
