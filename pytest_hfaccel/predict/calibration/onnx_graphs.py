"""Small ONNX graphs of one operator each, as transformers' exporter writes them. Imports onnx: import it late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pytest_hfaccel.predict.calibration import sizes

OPSET, IR_VERSION = 20, 10
"""What the exporter of transformers 5 writes."""

_MOST_NUMBERS = 40_000_000
"""More than any operator of `sizes` takes."""


class Numbers:
    """Random numbers, drawn once; each array is another part of them, because equal constants would be merged."""

    def __init__(self) -> None:
        self._drawn = np.random.default_rng(0).standard_normal(_MOST_NUMBERS, dtype=np.float32)
        self._taken = 0

    def of(self, *shape: int) -> NDArray[np.float32]:
        """Return an array of a shape; a view of what was drawn where that is enough."""
        count = int(np.prod(shape))
        self._taken = (self._taken + 4099) % max(1, len(self._drawn) - count)
        return np.resize(self._drawn[self._taken : self._taken + count], shape)


class OperatorGraph:
    """A graph under construction: values are names.

    A graph takes one number, `s` of the shape `[1]`, and gives a few, so that what is timed is neither the way of large
    tensors to the runtime and back nor what the runtime computed in advance (it folds what does not depend on inputs).

    Args:
        numbers: Where its constants come from.

    Attributes:
        constants: The constants by name, in the order in which they were made.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.constants: dict[str, NDArray[Any]] = {}
        self._numbers = numbers
        self._nodes: list[Any] = []

    def source(self, *shape: int) -> str:
        """Add random numbers that the runtime has to compute: a constant times `s`."""
        return self.add("Mul", self.random(*shape), "s")

    def random(self, *shape: int) -> str:
        """Add random constants."""
        return self.constant(self._numbers.of(*shape))

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return its output."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def ints(self, *values: int) -> str:
        """Add a constant list of whole numbers: a shape, axes."""
        return self.constant(np.array(values, dtype=np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        """Add a change of shape, which costs no copy."""
        return self.add("Reshape", x, self.ints(*shape))

    def first_of(self, values: Sequence[str]) -> str:
        """Add the first number of each value: the smallest output that makes the runtime compute all of them."""
        picked = [
            self.add("Slice", self.reshape(value, -1), self.ints(0), self.ints(1), self.ints(0)) for value in values
        ]
        return picked[0] if len(picked) == 1 else self.add("Concat", *picked, axis=0)

    def model(self, output: str, *shape: int) -> Any:
        """Return the finished graph, an `onnx.ModelProto` with the input `s` and the output `y` of a shape."""
        given = helper.make_tensor_value_info("s", TensorProto.FLOAT, [1])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
        nodes = [*self._nodes, helper.make_node("Identity", [output], ["y"])]
        weights = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(nodes, "operator", [given], [result], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def linear(graph: OperatorGraph, x: str, columns: int, depth: int) -> str:
    """Add `x @ w + b`; the exporter transposes the weight `w` to `[depth, columns]`."""
    return graph.add("Add", graph.add("MatMul", x, graph.random(depth, columns)), graph.random(columns))


def attention(graph: OperatorGraph, tensors: Sequence[str], shape: tuple[int, int, int]) -> str:
    """Add an attention with a mask, as the exporter takes it apart.

    Args:
        graph: The graph.
        tensors: Queries, as many keys, and as many values, each of the shape `[1, heads, queries, width]`.
        shape: Heads, queries, width.
    """
    (query, key, value), (heads, queries, width) = tensors, shape
    scale = graph.constant(np.array(width**-0.25, dtype=np.float32))
    turned = graph.add("Transpose", graph.reshape(key, heads, queries, width), perm=[0, 2, 1])
    turned = graph.reshape(turned, 1, heads, width, queries)
    scores = graph.add("MatMul", graph.add("Mul", query, scale), graph.add("Mul", turned, scale))
    weights = graph.add("Softmax", graph.add("Add", scores, graph.random(1, 1, queries, queries)), axis=-1)
    # Rows that may look at nothing are zero.
    blind = graph.constant(np.zeros((1, 1, queries, 1), dtype=np.bool_))
    zero = graph.constant(np.zeros((), dtype=np.float32))
    return graph.add("Where", blind, zero, graph.add("MatMul", weights, value))


def convolution(
    graph: OperatorGraph, x: str, channels: int, out: int, window: tuple[int, ...], groups: int, stride: int, pad: int
) -> str:
    """Add a convolution with a bias."""
    return graph.add(
        "Conv",
        x,
        graph.random(out, channels // groups, *window),
        graph.random(out),
        group=groups,
        pads=[pad] * 2 * len(window),
        strides=[stride] * len(window),
        dilations=[1] * len(window),
        kernel_shape=list(window),
    )


def _permute(graph: OperatorGraph, x: str, rows: int, width: int) -> str:
    """Bring heads before rows, as attention does: short runs of numbers change places."""
    head = min(width, sizes.HEAD)
    turned = graph.add("Transpose", graph.reshape(x, rows, width // head, head), perm=[1, 0, 2])
    return graph.reshape(turned, rows, width)


def _gather(graph: OperatorGraph, x: str, rows: int, width: int) -> str:
    places = np.random.default_rng(len(graph.constants)).integers(0, width, (rows, width), dtype=np.int64)
    return graph.add("GatherElements", x, graph.constant(places), axis=1)


def _masked(graph: OperatorGraph, x: str, rows: int, width: int) -> str:  # noqa: ARG001 - as the others
    mask = graph.constant(np.arange(width)[None] > width // 2)
    return graph.add("Where", mask, graph.random(1, 1), x)


Unary = Callable[[OperatorGraph, str, int, int], str]
"""Takes a graph, a value, its rows and its width, and gives a value of the same shape (`mean`: of one column)."""

MOVING: Mapping[str, Unary] = {
    "add": lambda graph, x, rows, width: graph.add("Add", x, graph.random(rows, width)),
    "in_place": lambda graph, x, *_: graph.add("Mul", x, graph.random(1)),
    "permute": _permute,
    "gather": _gather,
    "masked": _masked,
    "gelu": lambda graph, x, *_: graph.add("Gelu", x, approximate="none"),
    "tanh": lambda graph, x, *_: graph.add("Tanh", x),
}
"""Operators that move numbers, by kind of calibration; all but `concat_halves`, whose input has half the columns."""


def concat_halves(graph: OperatorGraph, half: str, rows: int, width: int) -> str:
    """Put other numbers beside `half`, of the shape `[rows, width // 2]`: all of the result is written."""
    return graph.add("Concat", half, graph.random(rows, max(1, width - width // 2)), axis=1)


def _layer_norm(graph: OperatorGraph, x: str, rows: int, width: int) -> str:  # noqa: ARG001 - as the others
    return graph.add("LayerNormalization", x, graph.random(width), graph.random(width), axis=-1, epsilon=1e-5)


def _batch_norm(graph: OperatorGraph, x: str, rows: int, width: int) -> str:
    channels = rows * width // 64
    scale, shift, mean = (graph.random(channels) for _ in range(3))
    variance = graph.constant(np.abs(graph.constants[mean]) + 0.5)
    images = graph.reshape(x, 1, channels, 8, 8)
    return graph.reshape(graph.add("BatchNormalization", images, scale, shift, mean, variance), rows, width)


NORMS: Mapping[str, Unary] = {
    "layer_norm": _layer_norm,
    "softmax": lambda graph, x, *_: graph.add("Softmax", x, axis=-1),
    "batch_norm": _batch_norm,
    "mean": lambda graph, x, *_: graph.add("ReduceMean", x, graph.ints(-1), keepdims=1),
}
"""Normalisations, softmax and means along the last axis, by kind of calibration."""
