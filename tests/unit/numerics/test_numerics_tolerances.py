"""The table of tolerances against the one in the design."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.numerics.tolerances import (
    NEEDS_MORE,
    SECOND_CHANCE_CEILING_FP32,
    Tolerance,
    tolerance_of,
)

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
def test_an_exported_graph_may_be_further_off_than_torch_with_tiny_weights(device: str, exported: bool) -> None:
    assert tolerance_of(_cell("fp32", device)).rel_l2 == (2e-5 if exported else 1e-5)


def test_a_class_that_needs_more_has_an_entry_that_still_fails_fp16() -> None:
    sam = replace(_cell("fp32"), model=ModelSpec("sam", "SamModel", "mask-generation"))
    assert (tolerance_of(sam).rel_l2, tolerance_of(sam).atol) == (5e-5, 5e-5)
    assert tolerance_of(replace(sam, dtype="fp16")) == tolerance_of(_cell("fp16"))
    for entry in NEEDS_MORE:
        assert len(entry.reason) > 20
        assert SECOND_CHANCE_CEILING_FP32 * entry.rel_l2 < 3.6e-4  # the least that fp16 cost
