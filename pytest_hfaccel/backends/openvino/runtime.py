"""OpenVINO as an exported runtime: conversion by transformers' exporter, compilation, and requests that tell errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.openvino.compression import compress, compression_facts
from pytest_hfaccel.backends.openvino.constants import holds_weight, with_changed_weight
from pytest_hfaccel.backends.openvino.device import DeviceMemory, compile_options, core, read_property
from pytest_hfaccel.backends.openvino.precision import effective_dtype, hint_of, require_precision
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream.openvino import send_no_telemetry
from pytest_hfaccel.upstream.transformers import openvino_runner

_STATIC_ONLY = frozenset({"NPU"})
"""Devices whose compiler takes static shapes only."""


class OpenVINORuntime:
    """See `pytest_hfaccel.backends.exported.ExportedRuntime`; a program is an `openvino.Model`."""

    name = "openvino"
    title = "OpenVINO"
    packages: tuple[str, ...] = ("openvino",)

    def convert(self, model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any], *, stateful: bool) -> Any:
        """Trace and convert a model, all of it in fp32."""
        from transformers.exporters import OpenVINOConfig, OpenVINOExporter

        send_no_telemetry()
        return OpenVINOExporter().export(model, dict(inputs), OpenVINOConfig(stateful=stateful, **options))

    def read(self, path: Path) -> ov.Model:
        """Read a program; its weights are mapped, not copied."""
        return core().read_model(str(path))

    def write(self, program: ov.Model, path: Path) -> None:
        """Write a program at the precision it has."""
        ov.save_model(program, path, compress_to_fp16=False)

    def takes_static_shapes_only(self, device: Device) -> bool:
        """Whether it is an NPU."""
        return device.target.partition(".")[0] in _STATIC_ONLY

    def compile(self, program: ov.Model, device: Device, dtype: str, architecture: str) -> OpenVINOGraph:
        """Compile a program. The CPU device gets as many threads as torch has in this process."""
        options = compile_options(device, hint_of(dtype, device), torch.get_num_threads())
        try:
            with out_of_memory_raised(device.id, "compile"):
                compiled = core().compile_model(program, device.target, options)
        except RuntimeError as error:
            raise LoadError(f"{architecture} cannot be compiled for {device}: {error}", stage="compile") from error
        require_precision(compiled, device, dtype)
        return OpenVINOGraph(program, compiled)

    def compress(self, program: ov.Model, architecture: str) -> ov.Model:
        """Have NNCF round the weights."""
        return compress(program, architecture)

    def compression_facts(self) -> dict[str, Any]:
        """Return NNCF's version and the mode."""
        return compression_facts()

    def holds_weight(self, program: ov.Model, weights: Mapping[str, Any], name: str) -> bool:
        """Whether a constant has the weight's values."""
        return holds_weight(program, weights, name)

    def edit_constant(self, program: ov.Model, weights: Mapping[str, Any], change: WeightChange) -> ov.Model:
        """Change the constants that have the weight's values."""
        return with_changed_weight(program, weights, change)

    def memory(self, device: Device) -> DeviceMemory:
        """Return the GPU plugin's own count, or the process's memory."""
        return DeviceMemory(device.target)


class OpenVINOGraph:
    """See `pytest_hfaccel.backends.exported.CompiledGraph`.

    Args:
        program: What was compiled.
        compiled: OpenVINO's compiled model.

    Attributes:
        compiled: As given.
        nbytes: Bytes of the constants: the weights, and what the converter computed from them.
        follows_batch: Whether a graph that takes any batch also returns it; see `_follows_batch`.
    """

    def __init__(self, program: ov.Model, compiled: Any) -> None:
        self.compiled = compiled
        self.nbytes = sum(op.get_byte_size() for op in program.get_ops() if op.get_type_name() == "Constant")
        self.follows_batch = _follows_batch(program)

    def runner(self, metadata: Any) -> Callable[..., Any]:
        """Return transformers' runner."""
        return openvino_runner(self.compiled, metadata, open_request(self.compiled))

    def decoder(self) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        """Return one run on a request of its own, whose state is empty."""
        request = open_request(self.compiled)
        names = {name for port in self.compiled.inputs for name in port.get_names()}

        def step(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            outputs = request.infer({name: value.numpy() for name, value in inputs.items() if name in names})
            return torch.from_numpy(next(value for port, value in outputs.items() if "logits" in port.get_names()))

        return step

    def effective_dtype(self, requested: str) -> str:
        """Return the dtype it computes at."""
        return effective_dtype(self.compiled, requested)


def open_request(compiled: Any) -> Any:
    """Return an inference request of a compiled model whose `infer` raises what goes wrong.

    With one thread the CPU plugin of OpenVINO 2026.4 forgets the errors of a synchronous call: a shape that does not
    fit gives outputs that nobody has computed, and the next call may end in a segmentation fault
    (docs/upstream/openvino_one_thread_forgets_errors.py). An asynchronous call raises them.
    """
    request = compiled.create_infer_request()
    return _AsynchronousRequest(request) if read_property(compiled, "INFERENCE_NUM_THREADS") == 1 else request


class _AsynchronousRequest:
    """Starts a request and waits for it: `InferRequest.infer`, by the way that reports errors.

    Args:
        request: OpenVINO's request.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    def infer(self, inputs: Any, *, share_inputs: bool = False, share_outputs: bool = False) -> Any:  # noqa: ARG002
        """Run the model; see `openvino.InferRequest.infer`. Outputs are always copied."""
        self._request.start_async(inputs, share_inputs=share_inputs)
        self._request.wait()
        return self._request.results


def _follows_batch(program: ov.Model) -> bool:
    """Whether a graph that takes any batch also returns it.

    A model whose code loops over the rows of the batch is traced into a graph whose inputs may have any number of rows
    and whose outputs all have that of the trace. To run it at another one is not an error for the CPU plugin of 2026.4
    with one thread, but a segmentation fault.
    """
    takes_any = any(_is_open(port) for port in program.inputs)
    return not takes_any or any(_is_open(port) for port in program.outputs)


def _is_open(port: Any) -> bool:
    shape = port.get_partial_shape()
    return bool(shape.rank.is_dynamic or (shape.rank.get_length() and shape[0].is_dynamic))
