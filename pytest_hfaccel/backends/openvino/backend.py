"""OpenVINO: conversion by transformers' exporter, compilation at the asked precision, requests that tell errors.

`OpenVINORuntime` and `OpenVINOGraph` are what `pytest_hfaccel.backends.exported` asks of a runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from pytest_hfaccel.backends.base import INT8, ModelSource, Placement
from pytest_hfaccel.backends.exported import OneRuntime
from pytest_hfaccel.backends.exported.graphs import Builder, Graph, Graphs
from pytest_hfaccel.backends.exported.model import GraphModel
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.openvino.device import (
    DeviceMemory,
    compile_options,
    core,
    device_facts,
    read_property,
    require_device,
)
from pytest_hfaccel.backends.openvino.precision import (
    confirm_precision,
    effective_dtype,
    hint_of,
    product_weights,
    require_precision,
    runtime_precisions,
)
from pytest_hfaccel.backends.openvino.weights import (
    compress,
    compression_facts,
    edit_constant,
    holds_weight,
    require_nncf,
)
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Cell, Device
from pytest_hfaccel.upstream.openvino import send_no_telemetry
from pytest_hfaccel.upstream.torch import no_cache_of_fake_operators
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
        with no_cache_of_fake_operators(when=bool(options)):
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

    compress = staticmethod(compress)
    compression_facts = staticmethod(compression_facts)
    holds_weight = staticmethod(holds_weight)
    edit_constant = staticmethod(edit_constant)

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


class OpenVINOBackend(OneRuntime):
    """Serves every OpenVINO device: CPU, GPU, NPU, and those that choose among them."""

    name = "openvino"
    runtime = OpenVINORuntime()

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Compute a product on the device; as `DeviceProbe.confirm`."""
        require_device(device)
        confirm_precision(device, dtype)
        return device_facts(device)

    def load(self, cell: Cell, source: ModelSource) -> GraphModel:
        """Convert the checkpoint, unless that has been done, and compile it for the cell's device.

        Raises:
            BackendUnavailable: The device is not there, or computes at another precision than the asked one.
            LoadError: Conversion (stage `convert`) or compilation (stage `compile`) failed.
            OutOfMemory: Memory ran out.
        """
        hint_of(cell.dtype, cell.device)
        require_device(cell.device)
        if cell.dtype == INT8:
            require_nncf(cell.device.id)
        confirm_precision(cell.device, cell.dtype)
        builder = Builder(self.runtime, source, cell.device, cell.dtype)
        graphs = Graphs(builder)
        graph = graphs.graph(source.sample().forward)
        return GraphModel(builder, graphs, _placement(cell, graph, reused=builder.reused > 0))


def _placement(cell: Cell, graph: Graph, *, reused: bool) -> Placement:
    compiled = graph.compiled.compiled  # type: ignore[attr-defined]  # an OpenVINOGraph
    executed = read_property(compiled, "EXECUTION_DEVICES") or ()
    details = {
        **device_facts(cell.device),
        "shapes": graph.conversion.shapes,
        "shapes_tried": graph.conversion.problems,
        "convert_cached": reused,
        "runtime_precisions": runtime_precisions(compiled),
        "converter": graph.conversion.metadata.packages,
    }
    if cell.dtype == INT8:
        details |= {
            "product_weights": product_weights(compiled),
            "compression": compression_facts(),
            "arithmetic": str(read_property(compiled, "INFERENCE_PRECISION_HINT")),
            "dynamic_quantization_group_size": read_property(compiled, "DYNAMIC_QUANTIZATION_GROUP_SIZE"),
        }
    devices = (executed,) if isinstance(executed, str) else tuple(str(device) for device in executed)
    effective = graph.compiled.effective_dtype(cell.dtype)
    return Placement(cell.device.id, devices, cell.dtype, effective, details=details)
