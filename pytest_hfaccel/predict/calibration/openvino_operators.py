"""Operators on an OpenVINO device: each is a graph of its own. Imports OpenVINO: import this file late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from pytest_hfaccel.predict.calibration import sizes
from pytest_hfaccel.predict.calibration.calibrating import OperatorTimer, median_seconds

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_COLD_BYTES = 40 * 2**20
"""As many matrix products with weights of their own run side by side as fill this much: see `torch_operators`."""
_MOST_COPIES = 4
_MOST_NUMBERS = 40_000_000
"""More than any operator of `sizes` takes."""


class OpenVINOOperators(OperatorTimer):
    """Times operators on one OpenVINO device.

    Raises:
        RuntimeError: The device would compute at another precision.
    """

    gathered = 3

    def __init__(self, target: str, dtype: str, threads: int) -> None:
        super().__init__(dtype)
        self._core = ov.Core()
        self._target = target
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
        if target == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._call = 0.0
        self._taken = 0
        self._noise = np.random.default_rng(0).standard_normal(_MOST_NUMBERS, dtype=np.float32)

    def facts(self, note: Callable[[str], None]) -> dict[str, Any]:
        """Measure everything; a compiled graph has neither views nor Python between its operators."""
        name = str(self._core.get_property(self._target, "FULL_DEVICE_NAME"))
        self._call = self._call_seconds()
        operators = tuple(self.measure(note))
        overheads = {"call_seconds": self._call_seconds(), "view_seconds": 0.0, "module_seconds": 0.0}
        versions = {"openvino": version("openvino")}
        return {"device_name": name, "versions": versions, "operators": operators, **overheads}

    def _call_seconds(self) -> float:
        """Return the seconds of a graph that computes next to nothing."""
        x = self._parameter(4)
        return median_seconds(self._request([ops.relu(x)], [x]).infer)

    def _linear(self, rows: int, columns: int, depth: int) -> float:
        copies = max(1, min(_MOST_COPIES, _COLD_BYTES // (4 * columns * depth)))
        x = self._parameter(rows, depth)
        products = [
            ops.add(ops.matmul(x, self._constant(columns, depth), False, True), self._constant(columns))
            for _ in range(copies)
        ]
        return self._time(products, x) / copies

    def _bmm(self, rows: int, columns: int, depth: int, matrices: int) -> float:
        x, y = self._parameter(matrices, rows, depth), self._parameter(matrices, depth, columns)
        return self._time([ops.matmul(x, y, False, False)], x, y)

    def _attention(self, queries: int, width: int, heads: int) -> float:
        q, k, v = (self._parameter(1, heads, queries, width) for _ in range(3))
        return self._time([ops.scaled_dot_product_attention(q, k, v)], q, k, v)

    def _run_convolution(
        self, shape: tuple[int, ...], out: int, window: tuple[int, ...], groups: int, stride: int, padding: int
    ) -> float:
        x, axes = self._parameter(*shape), len(window)
        arguments = ([stride] * axes, [padding] * axes, [padding] * axes, [1] * axes)
        inner = (shape[1] // groups, *window)
        if groups == 1:
            return self._time([ops.convolution(x, self._constant(out, *inner), *arguments)], x)
        return self._time([ops.group_convolution(x, self._constant(groups, out // groups, *inner), *arguments)], x)

    def _moving(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        x, y = self._parameter(rows, width), self._parameter(rows, width)
        half = self._parameter(rows, max(1, width // 2))
        heads = ops.reshape(x, ops.constant([rows, -1, min(width, sizes.HEAD)]), False)
        places = ops.constant(np.random.default_rng(0).integers(0, width, (rows, width), dtype=np.int32))
        mask = ops.constant(np.arange(width)[None] > width // 2)
        yield "add", partial(self._time, [ops.add(x, y)], x, y)
        yield "copy", partial(self._time, [ops.concat([half, half], 1)], half)
        for kind, node in (
            ("in_place", ops.multiply(x, self._constant(1))),
            ("permute", ops.transpose(heads, ops.constant([1, 0, 2]))),
            ("gather", ops.gather_elements(x, places, 1)),
            ("masked", ops.select(mask, self._constant(1, 1), x)),
            ("gelu", ops.gelu(x, "erf")),
            ("tanh", ops.tanh(x)),
        ):
            yield kind, partial(self._time, [node], x)

    def _norms(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        x, last = self._parameter(rows, width), ops.constant([-1])
        normal = ops.mvn(x, last, True, 1e-5, "INSIDE_SQRT")
        for kind, node in (
            ("layer_norm", ops.add(ops.multiply(normal, self._constant(width)), self._constant(width))),
            ("softmax", ops.softmax(x, -1)),
            ("batch_norm", ops.add(ops.multiply(x, self._constant(1, width)), self._constant(1, width))),
            ("mean", ops.reduce_mean(x, last, False)),
        ):
            yield kind, partial(self._time, [node], x)

    def _parameter(self, *shape: int) -> Any:
        return ops.parameter(list(shape), np.float32)

    def _constant(self, *shape: int) -> Any:
        return ops.constant(self._numbers(shape))

    def _numbers(self, shape: Sequence[int]) -> Any:
        """Return random numbers; different ones on each call, because equal constants would share their memory."""
        count = int(np.prod(shape))
        self._taken = (self._taken + 4099) % (len(self._noise) - count) if count < len(self._noise) else 0
        return self._noise[self._taken : self._taken + count].reshape(shape)

    def _time(self, results: list[Any], *parameters: Any) -> float:
        """Return the seconds of a graph without those of calling it, which every forward pass has once."""
        seconds = median_seconds(self._request(results, list(parameters)).infer, spreads=self.spreads)
        return max(seconds - self._call, seconds / 10)

    def _request(self, results: list[Any], parameters: list[Any]) -> Any:
        compiled = self._core.compile_model(ov.Model(results, parameters), self._target, self._options)
        if "INFERENCE_PRECISION_HINT" in compiled.get_property("SUPPORTED_PROPERTIES"):
            used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if used != self._options["INFERENCE_PRECISION_HINT"]:
                raise RuntimeError(f"the runtime would compute at {used} without saying so")
        request = compiled.create_infer_request()
        for index, parameter in enumerate(parameters):
            request.set_input_tensor(index, ov.Tensor(self._numbers(list(parameter.shape))))
        return request
