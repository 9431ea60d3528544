"""The graphs of a calibration compute what torch computes: else their times would be those of something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration.onnx_graphs import (
    MOVING,
    NORMS,
    OPSET,
    Numbers,
    OperatorGraph,
    attention,
    concat_halves,
    convolution,
    linear,
)

pytestmark = pytest.mark.slow

ROWS, WIDTH = 4, 100

Add = Callable[[OperatorGraph, Sequence[str]], str]
Compute = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], torch.Tensor]
"""Of the tensors that the graph makes from its input, and of the operator's own constants, in order."""


def heads_before_rows(x: torch.Tensor) -> torch.Tensor:
    return x.view(ROWS, 2, WIDTH // 2).transpose(0, 1).reshape(ROWS, WIDTH)


def batch_norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, *moments: torch.Tensor) -> torch.Tensor:
    mean, variance = moments[0], moments[1]
    return functional.batch_norm(x.view(1, -1, 8, 8), mean, variance, scale, shift).view(x.shape)


def masked_attention(x: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x[0], x[1], x[2], attn_mask=mask)


X: list[tuple[int, ...]] = [(ROWS, WIDTH)]
SQUARES: list[tuple[int, ...]] = [(8, 64)]

CASES: dict[str, tuple[list[tuple[int, ...]], Add, Compute]] = {
    "linear": (
        [(3, 8)],
        lambda graph, x: linear(graph, x[0], 5, 8),
        lambda x, own: functional.linear(x[0], own[0].T, own[1]),
    ),
    "attention": (
        [(1, 2, 6, 16)] * 3,
        lambda graph, x: attention(graph, x, (2, 6, 16)),
        lambda x, own: masked_attention(x, next(each for each in own if each.shape == (1, 1, 6, 6))),
    ),
    "conv": (
        [(2, 6, 9, 9)],
        lambda graph, x: convolution(graph, x[0], 6, 8, (3, 3), 2, 2, 1),
        lambda x, own: functional.conv2d(x[0], own[0], own[1], stride=2, padding=1, groups=2),
    ),
    "conv of sound": (
        [(1, 4, 20)],
        lambda graph, x: convolution(graph, x[0], 4, 4, (3,), 4, 1, 0),
        lambda x, own: functional.conv1d(x[0], own[0], own[1], groups=4),
    ),
    "copy": (
        [(ROWS, WIDTH // 2)],
        lambda graph, x: concat_halves(graph, x[0], ROWS, WIDTH),
        lambda x, own: torch.cat([x[0], own[0]], 1),
    ),
    "add": (X, lambda graph, x: MOVING["add"](graph, x[0], ROWS, WIDTH), lambda x, own: x[0] + own[0]),
    "in_place": (X, lambda graph, x: MOVING["in_place"](graph, x[0], ROWS, WIDTH), lambda x, own: x[0] * own[0]),
    "permute": (
        X,
        lambda graph, x: MOVING["permute"](graph, x[0], ROWS, WIDTH),
        lambda x, _: heads_before_rows(x[0]),
    ),
    "gather": (
        X,
        lambda graph, x: MOVING["gather"](graph, x[0], ROWS, WIDTH),
        lambda x, own: x[0].gather(1, own[0]),
    ),
    "masked": (
        X,
        lambda graph, x: MOVING["masked"](graph, x[0], ROWS, WIDTH),
        lambda x, own: torch.where(own[0], own[1], x[0]),
    ),
    "gelu": (X, lambda graph, x: MOVING["gelu"](graph, x[0], ROWS, WIDTH), lambda x, _: functional.gelu(x[0])),
    "tanh": (X, lambda graph, x: MOVING["tanh"](graph, x[0], ROWS, WIDTH), lambda x, _: x[0].tanh()),
    "layer_norm": (
        X,
        lambda graph, x: NORMS["layer_norm"](graph, x[0], ROWS, WIDTH),
        lambda x, own: functional.layer_norm(x[0], (WIDTH,), own[0], own[1]),
    ),
    "softmax": (X, lambda graph, x: NORMS["softmax"](graph, x[0], ROWS, WIDTH), lambda x, _: x[0].softmax(-1)),
    "batch_norm": (
        SQUARES,
        lambda graph, x: NORMS["batch_norm"](graph, x[0], 8, 64),
        lambda x, own: batch_norm(x[0], *own[:4]),
    ),
    "mean": (X, lambda graph, x: NORMS["mean"](graph, x[0], ROWS, WIDTH), lambda x, _: x[0].mean(-1, keepdim=True)),
}


def test_there_is_a_case_for_every_operator() -> None:
    assert {*MOVING, *NORMS} <= CASES.keys()


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_torch_computes(name: str, numbers: Numbers) -> None:
    from pytest_hfaccel.backends.onnxruntime.sessions import open_session

    shapes, add, compute = CASES[name]
    graph = OperatorGraph(numbers)
    sources = [graph.source(*shape) for shape in shapes]
    given = [torch.from_numpy(array.copy()) for array in graph.constants.values()]
    result = add(graph, sources)
    own = [torch.from_numpy(array.copy()) for array in list(graph.constants.values())[len(given) :]]
    scale = 0.5
    tensors = [tensor * scale for tensor in given]
    # Shapes and axes are constants, too; what computes is of floats, masks, and the places of `gather`.
    expected = compute(tensors, own if name == "gather" else [each for each in own if each.dtype != torch.int64])
    session = open_session(
        graph.model(result, *expected.shape).SerializeToString(), Device.parse("onnxruntime:CPU"), optimise=False
    )
    (found,) = session.run(None, {"s": np.array([scale], dtype=np.float32)})
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_graph_gives_the_first_number_of_each_result(numbers: Numbers) -> None:
    from pytest_hfaccel.backends.onnxruntime.sessions import open_session

    graph = OperatorGraph(numbers)
    x, y = graph.source(3, 5), graph.source(7)
    model: Any = graph.model(graph.first_of([x, y]), 2)
    session = open_session(model.SerializeToString(), Device.parse("onnxruntime:CPU"))
    (found,) = session.run(None, {"s": np.array([2.0], dtype=np.float32)})
    first, second = (array.reshape(-1)[0] for array in list(graph.constants.values())[:2])
    np.testing.assert_allclose(found, [2 * first, 2 * second], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, in its own exporter
def test_the_exporter_writes_the_opset_that_is_calibrated() -> None:
    from transformers import BertConfig, BertModel

    from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntime

    config = BertConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    inputs = {"input_ids": torch.ones(1, 4, dtype=torch.int64), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    program = OnnxRuntime().convert(BertModel(config).eval(), inputs, {}, stateful=False).program
    assert program.opset_imports[""] == OPSET
    assert {node.op_type for node in program.graph} >= {"MatMul", "Softmax", "LayerNormalization", "Gelu", "Transpose"}
