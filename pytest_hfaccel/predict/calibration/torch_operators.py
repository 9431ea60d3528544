"""Operators on a torch device, and what Python adds to each. Imports torch: import this file late."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from pytest_hfaccel.predict.calibration import sizes
from pytest_hfaccel.predict.calibration.calibrating import median_seconds
from pytest_hfaccel.predict.calibration.records import DeviceCalibration, TimedOperator
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
from pytest_hfaccel.tracing.traces import trace_model

_COLD_BYTES = 64 * 2**20
"""A model reads each weight once per pass, so weights come from memory, not from a cache. As many copies of a weight
take turns as fill this much: more than the last-level cache of most CPUs."""
_WARM_BYTES = 8 * 2**20
"""Activations are read from the cache that holds what a layer's weights have not yet pushed out: more than the second
level of most CPUs, less than the last."""
_MOST_COPIES = 48
_ROW, _HEAD = 1000, 50


class TorchOperators:
    """Times operators on one torch device.

    Args:
        device: torch's name of the device.
        dtype: torch's dtype.

    Attributes:
        spreads: How far each median is above the operator's fastest run, as a share.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self._device = torch.device(device)
        self._dtype = dtype
        self.spreads: list[float] = []

    def measure(self, note: Callable[[str], None]) -> Iterator[TimedOperator]:
        """Time every operator of `sizes`; `note` is called with what comes next."""
        with torch.inference_mode():
            for what, times in (
                ("matrix products", self._linear),
                ("batched products", self._bmm),
                ("attention", self._attention),
                ("convolutions", self._convolutions),
                ("copies and activations", self._moving),
                ("normalisations", self._norms),
            ):
                note(what)
                yield from times()

    def overheads(self) -> tuple[float, float]:
        """Return the seconds of an operator that computes next to nothing, and of a view."""
        with torch.inference_mode():
            small = self._random(4, 4)
            return self._time(lambda: small.add(small)), self._time(lambda: small.view(16))

    def _linear(self) -> Iterator[TimedOperator]:
        for rows, columns, depth in sizes.LINEAR:
            x, bias = self._random(rows, depth), self._random(columns)
            weights = itertools.cycle(self._copies(columns, depth))
            seconds = self._time(lambda: functional.linear(x, next(weights), bias))  # noqa: B023 - timed at once
            numbers = rows * depth + columns * depth + rows * columns
            yield self._timed("linear", (rows, columns, depth), seconds, 2 * rows * columns * depth, numbers)

    def _bmm(self) -> Iterator[TimedOperator]:
        for rows, columns, depth, matrices in sizes.BMM:
            x, y = self._random(matrices, rows, depth), self._random(matrices, depth, columns)
            seconds = self._time(lambda: torch.bmm(x, y))  # noqa: B023
            numbers = matrices * (rows * depth + depth * columns + rows * columns)
            flops = 2 * matrices * rows * columns * depth
            yield self._timed("bmm", (rows, columns, depth, matrices), seconds, flops, numbers)

    def _attention(self) -> Iterator[TimedOperator]:
        for queries, width, heads in sizes.ATTENTION:
            q = self._random(1, heads, queries, width)
            seconds = self._time(lambda: functional.scaled_dot_product_attention(q, q, q))  # noqa: B023
            flops = 4 * heads * queries * queries * width
            yield self._timed("attention", (queries, width, heads), seconds, flops, 4 * q.numel())

    def _convolutions(self) -> Iterator[TimedOperator]:
        for batch, channels, side, out, window, groups, stride in (*sizes.CONV, *sizes.DEPTHWISE):
            padding = window // 2 if stride == 1 else 0
            layer = torch.nn.Conv2d(channels, out, window, stride, padding, groups=groups)
            yield self._convolution(layer, self._random(batch, channels, side, side))
        for channels, samples, out, window, groups, stride in sizes.SOUND:
            sound = torch.nn.Conv1d(channels, out, window, stride, window // 2 if groups > 1 else 0, groups=groups)
            yield self._convolution(sound, self._random(1, channels, samples))

    def _convolution(self, layer: Any, x: torch.Tensor) -> TimedOperator:
        layer = layer.to(self._device, self._dtype)
        seconds, y = self._time(lambda: layer(x)), layer(x)
        window = layer.weight[0].numel()
        rows, columns = y.numel() // layer.out_channels, layer.out_channels // layer.groups
        numbers = x.numel() + y.numel() + layer.weight.numel()
        flops = 2 * y.numel() * window
        if columns == 1:
            return self._timed("depthwise", (y.numel(), window), seconds, flops, numbers)
        return self._timed("conv", (rows, columns, window, layer.groups), seconds, flops, numbers)

    def _moving(self) -> Iterator[TimedOperator]:
        for count in sizes.NUMBERS:
            rows = max(1, count // _ROW)
            width = min(count, _ROW)
            # What an operator reads was written a few operators ago: it has left the nearest caches.
            xs = itertools.cycle(self._copies(rows, width, fill=_WARM_BYTES))
            y, places = self._random(rows, width), torch.randint(width, (rows, width), device=self._device)
            mask = places[:1] > width // 2
            for kind, run, numbers in (
                ("add", lambda: next(xs) + y, 3),  # noqa: B023
                ("in_place", lambda: next(xs).mul_(1.0), 2),  # noqa: B023
                ("copy", lambda: next(xs).clone(), 2),  # noqa: B023
                ("permute", lambda: _swapped(next(xs)), 2),  # noqa: B023
                ("gather", lambda: next(xs).gather(1, places), 4),  # noqa: B023
                ("masked", lambda: next(xs).masked_fill(mask, 0.0), 2),  # noqa: B023
                ("gelu", lambda: functional.gelu(next(xs)), 2),  # noqa: B023
                ("tanh", lambda: torch.tanh(next(xs)), 2),  # noqa: B023
            ):
                seconds = self._time(run)
                yield self._timed(kind, (rows * width,), seconds, 0, numbers * rows * width)

    def _norms(self) -> Iterator[TimedOperator]:
        for rows, width in sizes.NORMS:
            x, weight = self._random(rows, width), self._random(width)
            images = x.reshape(1, -1, 8, 8)
            channel = self._random(images.shape[1]).abs()
            for kind, run in (
                ("layer_norm", lambda: functional.layer_norm(x, (width,), weight, weight)),  # noqa: B023
                ("softmax", lambda: torch.softmax(x, -1)),  # noqa: B023
                ("batch_norm", lambda: functional.batch_norm(images, channel, channel, channel, channel)),  # noqa: B023
                ("mean", lambda: x.mean(-1)),  # noqa: B023
            ):
                yield self._timed(kind, (rows * width,), self._time(run), 0, 2 * rows * width)

    def _timed(self, kind: str, size: tuple[int, ...], seconds: float, flops: int, numbers: int) -> TimedOperator:
        return TimedOperator(kind, size, seconds, flops, numbers * self._dtype.itemsize)

    def _time(self, run: Callable[[], Any]) -> float:
        return median_seconds(run, self._finish, self.spreads)

    def _finish(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float32).to(self._device, self._dtype)

    def _copies(self, *shape: int, fill: int = _COLD_BYTES) -> list[torch.Tensor]:
        first = self._random(*shape)
        copies = max(1, min(_MOST_COPIES, fill // (first.numel() * first.element_size())))
        return [first, *(first.clone() for _ in range(copies - 1))]


def _swapped(x: torch.Tensor) -> torch.Tensor:
    """Bring heads before rows, as attention does: short runs of numbers change places."""
    return x.view(x.shape[0], -1, min(_HEAD, x.shape[1])).transpose(0, 1).contiguous()


_LENGTH = 8
_NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("BertModel", {**_NARROW, "vocab_size": 128}),
    ("LlamaModel", {**_NARROW, "vocab_size": 128, "num_key_value_heads": 1, "use_cache": False}),
    ("ViTModel", {**_NARROW, "image_size": 32, "patch_size": 16}),
)
"""Models so narrow that Python takes most of the time: what is left when the operators' own times are subtracted."""


def seconds_per_launch(calibration: DeviceCalibration, device: str) -> float:
    """Return the seconds that Python takes per operator, measured on models of three architectures.

    Args:
        calibration: The operators' own times on the device.
        device: torch's name of the device.
    """
    roofline = OperatorRoofline(calibration)
    return statistics.median(_of_models(roofline, device))


def _of_models(roofline: OperatorRoofline, device: str) -> Iterator[float]:
    for architecture, dims in _MODELS:
        trace = trace_model(architecture, dims, batch=1, length=_LENGTH)
        yield max(0.0, _seconds(architecture, dims, device) - roofline.seconds(trace)) / trace.launches


def _seconds(architecture: str, dims: dict[str, Any], device: str) -> float:
    import transformers

    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**dims)).eval().to(device)
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.randn(1, 3, dims["image_size"], dims["image_size"], device=device)}
    else:
        ids = torch.randint(5, 100, (1, _LENGTH), device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    finish = torch.accelerator.synchronize if device != "cpu" else _nothing
    with torch.inference_mode():
        return median_seconds(lambda: model(**inputs), finish)


def _nothing() -> None:
    """On the CPU, a call has finished when it returns."""
