"""Operators on a torch device, and what Python adds to each. Imports torch: import this file late."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch.nn import functional

from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration import sizes
from pytest_hfaccel.predict.calibration.calibrating import OperatorTimer, median_seconds
from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
from pytest_hfaccel.tracing.traces import trace_model

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_COLD_BYTES = 64 * 2**20
"""A model reads each weight once per pass, so weights come from memory, not from a cache. As many copies of a weight
take turns as fill this much: more than the last-level cache of most CPUs."""
_WARM_BYTES = 8 * 2**20
"""Activations are read from the cache that holds what a layer's weights have not yet pushed out: more than the second
level of most CPUs, less than the last."""
_MOST_COPIES = 48


class TorchOperators(OperatorTimer):
    """Times operators on one torch device at `fp32`, `bf16` or `fp16`."""

    gathered = 4

    def __init__(self, device: Device, dtype: str) -> None:
        super().__init__(dtype)
        self._spec, self._device, self._dtype = device, torch.device(device.torch_name), _DTYPES[dtype]

    def facts(self, note: Callable[[str], None]) -> dict[str, Any]:
        """Measure everything."""
        with torch.inference_mode():
            facts: dict[str, Any] = {"operators": tuple(self.measure(note))}
            small = self._random(4, 4)
            facts["call_seconds"] = self._time(lambda: small.add(small))
            facts["view_seconds"] = self._time(lambda: small.view(16))
        note("the time Python takes between operators")
        known = DeviceCalibration(self._spec.id, "", "", 1, "", 0.0, {}, module_seconds=0.0, **facts)
        facts["module_seconds"] = seconds_per_launch(known, self._spec.torch_name)
        return {"device_name": self._name(), "versions": {"torch": version("torch")}, **facts}

    def _name(self) -> str:
        if self._spec.kind in ("cuda", "rocm"):
            return str(torch.cuda.get_device_name(self._device))
        if self._spec.kind == "xpu":
            return str(torch.xpu.get_device_name(self._device))
        from pytest_hfaccel.hardware.cpu import read_cpu

        return read_cpu().name

    def _linear(self, rows: int, columns: int, depth: int) -> float:
        x, bias = self._random(rows, depth), self._random(columns)
        weights = itertools.cycle(self._copies(columns, depth))
        return self._time(lambda: functional.linear(x, next(weights), bias))

    def _bmm(self, rows: int, columns: int, depth: int, matrices: int) -> float:
        x, y = self._random(matrices, rows, depth), self._random(matrices, depth, columns)
        return self._time(lambda: torch.bmm(x, y))

    def _attention(self, queries: int, width: int, heads: int) -> float:
        q = self._random(1, heads, queries, width)
        return self._time(lambda: functional.scaled_dot_product_attention(q, q, q))

    def _run_convolution(
        self, shape: tuple[int, ...], out: int, window: tuple[int, ...], groups: int, stride: int, padding: int
    ) -> float:
        kind: Any = torch.nn.Conv1d if len(window) == 1 else torch.nn.Conv2d
        layer = kind(shape[1], out, window, stride, padding, groups=groups).to(self._device, self._dtype)
        x = self._random(*shape)
        return self._time(lambda: layer(x))

    def _moving(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        # What an operator reads was written a few operators ago: it has left the nearest caches.
        xs = itertools.cycle(self._copies(rows, width, fill=_WARM_BYTES))
        y, places = self._random(rows, width), torch.randint(width, (rows, width), device=self._device)
        mask = places[:1] > width // 2

        def swapped(x: torch.Tensor) -> torch.Tensor:
            """Bring heads before rows, as attention does: short runs of numbers change places."""
            return x.view(rows, -1, min(sizes.HEAD, width)).transpose(0, 1).contiguous()

        for kind, run in (
            ("add", lambda: next(xs) + y),
            ("in_place", lambda: next(xs).mul_(1.0)),
            ("copy", lambda: next(xs).clone()),
            ("permute", lambda: swapped(next(xs))),
            ("gather", lambda: next(xs).gather(1, places)),
            ("masked", lambda: next(xs).masked_fill(mask, 0.0)),
            ("gelu", lambda: functional.gelu(next(xs))),
            ("tanh", lambda: torch.tanh(next(xs))),
        ):
            yield kind, partial(self._time, run)

    def _norms(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        x, weight = self._random(rows, width), self._random(width)
        images = x.reshape(1, -1, 8, 8)
        channel = self._random(images.shape[1]).abs()
        for kind, run in (
            ("layer_norm", lambda: functional.layer_norm(x, (width,), weight, weight)),
            ("softmax", lambda: torch.softmax(x, -1)),
            ("batch_norm", lambda: functional.batch_norm(images, channel, channel, channel, channel)),
            ("mean", lambda: x.mean(-1)),
        ):
            yield kind, partial(self._time, run)

    def _time(self, run: Callable[[], Any]) -> float:
        return median_seconds(run, _waiting_for(self._device), self.spreads)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float32).to(self._device, self._dtype)

    def _copies(self, *shape: int, fill: int = _COLD_BYTES) -> list[torch.Tensor]:
        first = self._random(*shape)
        copies = max(1, min(_MOST_COPIES, fill // (first.numel() * first.element_size())))
        return [first, *(first.clone() for _ in range(copies - 1))]


def _waiting_for(device: torch.device) -> Callable[[], Any]:
    """Return what waits for a device; on the CPU, a call has finished when it returns."""
    return (lambda: None) if device.type == "cpu" else (lambda: torch.accelerator.synchronize(device))


_LENGTH = 8
_NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("BertModel", {**_NARROW, "vocab_size": 128}),
    ("LlamaModel", {**_NARROW, "vocab_size": 128, "num_key_value_heads": 1, "use_cache": False}),
    ("ViTModel", {**_NARROW, "image_size": 32, "patch_size": 16}),
)
"""Models so narrow that Python takes most of the time: what is left when the operators' own times are subtracted."""


def seconds_per_launch(calibration: DeviceCalibration, device: str) -> float:
    """Return the seconds that Python takes per operator, measured on models of three architectures."""
    roofline, found = OperatorRoofline(calibration), []
    for architecture, dims in _MODELS:
        trace = trace_model(architecture, dims, batch=1, length=_LENGTH)
        besides = _seconds(architecture, dims, torch.device(device)) - roofline.seconds(trace)
        found.append(max(0.0, besides) / trace.launches)
    return statistics.median(found)


def _seconds(architecture: str, dims: dict[str, Any], device: torch.device) -> float:
    import transformers

    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**dims)).eval().to(device)
    if model.main_input_name == "pixel_values":
        inputs = {"pixel_values": torch.randn(1, 3, dims["image_size"], dims["image_size"], device=device)}
    else:
        ids = torch.randint(5, 100, (1, _LENGTH), device=device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        return median_seconds(lambda: model(**inputs), _waiting_for(device))
