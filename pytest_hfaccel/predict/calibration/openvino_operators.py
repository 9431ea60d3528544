"""Operators on an OpenVINO device: each is a graph of its own. Imports OpenVINO: import this file late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from pytest_hfaccel.predict.calibration import sizes
from pytest_hfaccel.predict.calibration.calibrating import median_seconds
from pytest_hfaccel.predict.calibration.records import TimedOperator

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_COLD_BYTES = 40 * 2**20
"""As many matrix products with weights of their own run side by side as fill this much: see `torch_device`."""
_MOST_COPIES = 4
_ROW, _HEAD = 1000, 50
_MOST_NUMBERS = 40_000_000
"""More than any operator of `sizes` takes."""


class OpenVINOOperators:
    """Times operators on one OpenVINO device.

    Args:
        target: OpenVINO's name of the device: `CPU`, `GPU.0`.
        dtype: `fp32`, `bf16` or `fp16`.
        threads: Threads of the CPU plugin.

    Attributes:
        spreads: How far each median is above the operator's fastest run, as a share.

    Raises:
        RuntimeError: The device would compute at another precision.
    """

    def __init__(self, target: str, dtype: str, threads: int) -> None:
        self._core = ov.Core()
        self._target = target
        self._bytes = _BYTES[dtype]
        self._options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
        if target == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = threads
        self.device_name = str(self._core.get_property(target, "FULL_DEVICE_NAME"))
        self.spreads: list[float] = []
        self._call = 0.0
        self._taken = 0
        self._noise = np.random.default_rng(0).standard_normal(_MOST_NUMBERS, dtype=np.float32)

    def measure(self, note: Callable[[str], None]) -> Iterator[TimedOperator]:
        """Time every operator of `sizes`; `note` is called with what comes next."""
        self._call = self.call_seconds()
        for what, times in (
            ("matrix products", self._linear),
            ("batched products", self._bmm),
            ("attention", self._attention),
            ("convolutions", self._convolutions),
            ("copies and activations", self._moving),
            ("normalisations", self._norms),
        ):
            note(what)
            for kind, size, seconds, flops, numbers in times():
                yield TimedOperator(kind, size, seconds, flops, numbers * self._bytes)

    def call_seconds(self) -> float:
        """Return the seconds of a graph that computes next to nothing."""
        x = self._parameter(4)
        return median_seconds(self._request([ops.relu(x)], [x]).infer)

    def _linear(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for rows, columns, depth in sizes.LINEAR:
            copies = max(1, min(_MOST_COPIES, _COLD_BYTES // (4 * columns * depth)))
            x = self._parameter(rows, depth)
            products = [
                ops.add(ops.matmul(x, self._constant(columns, depth), False, True), self._constant(columns))
                for _ in range(copies)
            ]
            numbers = rows * depth + columns * depth + rows * columns
            seconds = self._time(products, [x]) / copies
            yield "linear", (rows, columns, depth), seconds, 2 * rows * columns * depth, numbers

    def _bmm(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for rows, columns, depth, matrices in sizes.BMM:
            x, y = self._parameter(matrices, rows, depth), self._parameter(matrices, depth, columns)
            seconds = self._time([ops.matmul(x, y, False, False)], [x, y])
            numbers = matrices * (rows * depth + depth * columns + rows * columns)
            yield "bmm", (rows, columns, depth, matrices), seconds, 2 * matrices * rows * columns * depth, numbers

    def _attention(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for queries, width, heads in sizes.ATTENTION:
            q, k, v = (self._parameter(1, heads, queries, width) for _ in range(3))
            attention = ops.scaled_dot_product_attention(q, k, v)
            flops, numbers = 4 * heads * queries * queries * width, 4 * heads * queries * width
            yield "attention", (queries, width, heads), self._time([attention], [q, k, v]), flops, numbers

    def _convolutions(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for batch, channels, side, out, window, groups, stride in (*sizes.CONV, *sizes.DEPTHWISE):
            padding = window // 2 if stride == 1 else 0
            shape = (batch, channels, side, side)
            yield self._convolution(shape, out, (window, window), groups, stride, padding)
        for channels, samples, out, window, groups, stride in sizes.SOUND:
            padding = window // 2 if groups > 1 else 0
            yield self._convolution((1, channels, samples), out, (window,), groups, stride, padding)

    def _convolution(
        self, shape: tuple[int, ...], out: int, window: tuple[int, ...], groups: int, stride: int, padding: int
    ) -> tuple[str, tuple[int, ...], float, int, int]:
        x, axes = self._parameter(*shape), len(window)
        arguments = ([stride] * axes, [padding] * axes, [padding] * axes, [1] * axes)
        inner = (shape[1] // groups, *window)
        if groups == 1:
            node = ops.convolution(x, self._constant(out, *inner), *arguments)
        else:
            node = ops.group_convolution(x, self._constant(groups, out // groups, *inner), *arguments)
        numbers = int(np.prod(node.shape))
        rows, columns, depth = numbers // out, out // groups, int(np.prod(inner))
        moved = int(np.prod(shape)) + numbers + out * depth
        seconds, flops = self._time([node], [x]), 2 * numbers * depth
        if columns == 1:
            return "depthwise", (numbers, depth), seconds, flops, moved
        return "conv", (rows, columns, depth, groups), seconds, flops, moved

    def _moving(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for count in sizes.NUMBERS:
            rows, width = max(1, count // _ROW), min(count, _ROW)
            x, y = self._parameter(rows, width), self._parameter(rows, width)
            half = self._parameter(rows, max(1, width // 2))
            heads = ops.reshape(x, ops.constant([rows, -1, min(width, _HEAD)]), False)
            places = ops.constant(np.random.default_rng(0).integers(0, width, (rows, width), dtype=np.int32))
            mask = ops.constant(np.arange(width)[None] > width // 2)
            for kind, node, inputs, moved in (
                ("add", ops.add(x, y), [x, y], 3),
                ("in_place", ops.multiply(x, self._constant(1)), [x], 2),
                ("copy", ops.concat([half, half], 1), [half], 2),
                ("permute", ops.transpose(heads, ops.constant([1, 0, 2])), [x], 2),
                ("gather", ops.gather_elements(x, places, 1), [x], 3),
                ("masked", ops.select(mask, self._constant(1, 1), x), [x], 2),
                ("gelu", ops.gelu(x, "erf"), [x], 2),
                ("tanh", ops.tanh(x), [x], 2),
            ):
                yield kind, (rows * width,), self._time([node], inputs), 0, moved * rows * width

    def _norms(self) -> Iterator[tuple[str, tuple[int, ...], float, int, int]]:
        for rows, width in sizes.NORMS:
            x, last = self._parameter(rows, width), ops.constant([-1])
            normal = ops.mvn(x, last, True, 1e-5, "INSIDE_SQRT")
            norm = ops.add(ops.multiply(normal, self._constant(width)), self._constant(width))
            scaled = ops.add(ops.multiply(x, self._constant(1, width)), self._constant(1, width))
            for kind, node in (
                ("layer_norm", norm),
                ("softmax", ops.softmax(x, -1)),
                ("batch_norm", scaled),
                ("mean", ops.reduce_mean(x, last, False)),
            ):
                yield kind, (rows * width,), self._time([node], [x]), 0, 2 * rows * width

    def _parameter(self, *shape: int) -> Any:
        return ops.parameter(list(shape), np.float32)

    def _constant(self, *shape: int) -> Any:
        return ops.constant(self._numbers(shape))

    def _numbers(self, shape: Sequence[int]) -> Any:
        """Return random numbers; different ones on each call, because equal constants would share their memory."""
        count = int(np.prod(shape))
        self._taken = (self._taken + 4099) % (len(self._noise) - count) if count < len(self._noise) else 0
        return self._noise[self._taken : self._taken + count].reshape(shape)

    def _time(self, results: list[Any], parameters: list[Any]) -> float:
        """Return the seconds of a graph without those of calling it, which every forward pass has once."""
        seconds = median_seconds(self._request(results, parameters).infer, spreads=self.spreads)
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
