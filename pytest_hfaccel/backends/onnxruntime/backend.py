"""ONNX Runtime: sessions at the asked precision on one provider, what fell back to the CPU told and counted.

`OnnxRuntime` and `SessionGraph` are what `pytest_hfaccel.backends.exported` asks of a runtime.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime as ort
import torch

from pytest_hfaccel.backends.base import INT8, ModelSource, Placement
from pytest_hfaccel.backends.exported import OneRuntime
from pytest_hfaccel.backends.exported.graphs import Builder, Graph, Graphs
from pytest_hfaccel.backends.exported.model import GraphModel
from pytest_hfaccel.backends.exported.onnx_programs import (
    OnnxPrograms,
    constant_sizes,
    follows_batch,
    require_packages,
    state_of,
)
from pytest_hfaccel.backends.memory import ProcessMemory, out_of_memory_raised
from pytest_hfaccel.backends.onnxruntime.precision import (
    PRODUCTS,
    FinalGraph,
    compress,
    compression_facts,
    confirm_precision,
    in_half_precision,
    open_and_read_back,
    require_known,
)
from pytest_hfaccel.backends.onnxruntime.providers import CPU, options_of, provider_of, target_of
from pytest_hfaccel.backends.onnxruntime.sessions import (
    OPTIONS,
    NodesByProvider,
    errors_as_runtime_errors,
    hardware_of,
    nodes_by_provider,
    require_device,
)
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError, first_line
from pytest_hfaccel.core.spec import Cell, Device
from pytest_hfaccel.upstream.transformers import onnxruntime_runner


class OnnxRuntime(OnnxPrograms):
    """See `pytest_hfaccel.backends.exported.ExportedRuntime`; a program is an `onnx_ir.Model`."""

    title = "ONNX"

    def takes_static_shapes_only(self, device: Device) -> bool:
        """Whether its provider does."""
        return provider_of(device).static_shapes_only

    def compile(self, program: Any, device: Device, dtype: str, architecture: str) -> SessionGraph:
        """Open a session, and read back which precision the graph runs at and which provider has each node."""
        if dtype == "fp16":
            program = in_half_precision(program, architecture)
        try:
            with out_of_memory_raised(device.id, "compile"):
                session, graph = open_and_read_back(program, device, architecture)
        except RuntimeError as error:
            raise LoadError(
                f"{architecture} cannot be compiled for {device}: {_without_path(first_line(error))}", stage="compile"
            ) from error
        compiled = SessionGraph(program, session, graph, device)
        real = compiled.effective_dtype(dtype)
        if real != dtype:
            weights = graph.product_weights(convolutions=dtype != INT8) if graph is not None else {}
            raise BackendUnavailable(
                f"{device}: asked for {dtype}, but the products of the graph that ONNX Runtime runs are in {real}: "
                f"{weights or 'none'} (elements of their weights by type).",
                stage="compile",
                hint="A model without matrix products has no int8." if dtype == INT8 else "Test it at fp32.",
            )
        return compiled

    compress = staticmethod(compress)
    compression_facts = staticmethod(compression_facts)

    def memory(self, device: Device) -> ProcessMemory:  # noqa: ARG002 - the providers tell no count of their own
        """Return the process's memory; what a provider holds on a device of its own is not in it."""
        return ProcessMemory()


class SessionGraph:
    """See `pytest_hfaccel.backends.exported.CompiledGraph`.

    Args:
        program: What the session was opened with.
        session: ONNX Runtime's session.
        final: The graph that it runs; `None` where it cannot be read back.
        device: The device.

    Attributes:
        nbytes: Bytes of the constants.
        follows_batch: Whether a graph that takes any batch also returns it.
        nodes: Which provider runs each node.
        final: As given.
    """

    def __init__(self, program: Any, session: ort.InferenceSession, final: FinalGraph | None, device: Device) -> None:
        self._session = session
        self._device = device
        self._state = state_of(program)
        self.nbytes = sum(constant_sizes(program).values())
        self.follows_batch = follows_batch(program)
        self.nodes: NodesByProvider = nodes_by_provider(session)
        self.final = final

    def runner(self, metadata: Any) -> Callable[..., Any]:
        """Return transformers' runner."""
        run = onnxruntime_runner(self._session, metadata)

        def run_telling_errors(**inputs: torch.Tensor) -> Any:
            with errors_as_runtime_errors():
                return run(**inputs)

        return run_telling_errors

    def decoder(self) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        """Return one run with an empty cache: what the graph returns of it goes into the next run."""
        names = {each.name for each in self._session.get_inputs()}
        outputs = ["logits", *(each.output for each in self._state)]
        cache: dict[str, Any] = {}

        def step(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            if not cache:
                rows = inputs["input_ids"].shape[0]
                cache.update({each.input: each.initial(rows).numpy() for each in self._state})
            feed = {name: value.numpy() for name, value in inputs.items() if name in names}
            with errors_as_runtime_errors():
                logits, *following = self._session.run(outputs, {**feed, **cache})
            cache.update({each.input: value for each, value in zip(self._state, following, strict=True)})
            return torch.from_numpy(logits)

        return step

    def effective_dtype(self, requested: str) -> str:
        """Return the dtype of the products in the graph that runs.

        Where the provider compiles it, nobody can read that: the device has computed a product at the asked precision
        (`confirm_precision`), and for int8 nothing is known.
        """
        if self.final is not None:
            return self.final.dtype(requested)
        return "unknown" if requested == INT8 else requested

    def fallback(self) -> dict[str, int]:
        """Return the operators that the CPU runs in place of the device, with their numbers."""
        return {} if provider_of(self._device).name == CPU else self.nodes.operators_on(CPU)

    def devices(self) -> tuple[str, ...]:
        """Return the providers that do the work of a model: products of matrices on the CPU count, sizes do not."""
        own = provider_of(self._device).name
        idle = CPU if own != CPU and own in self.nodes.counts and not self.products_on_cpu() else ""
        names = [name for name in self.nodes.counts if name != idle]
        return tuple(self._device.target if name == own else target_of(name) for name in names)

    def products_on_cpu(self) -> dict[str, int]:
        """Return those of the operators that fell back whose work matters."""
        return {operator: count for operator, count in self.fallback().items() if operator in PRODUCTS}


class OnnxRuntimeBackend(OneRuntime):
    """Serves every provider of ONNX Runtime."""

    name = "onnxruntime"
    runtime = OnnxRuntime()

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Compute a product on the device; as `DeviceProbe.confirm`."""
        require_device(device)
        require_known(dtype, device)
        confirm_precision(device, dtype)
        return _device_facts(device)

    def load(self, cell: Cell, source: ModelSource) -> GraphModel:
        """Convert the checkpoint, unless that has been done, and open a session on the cell's device.

        Raises:
            BackendUnavailable: The provider is not there, or computes at another precision than the asked one.
            LoadError: Conversion (stage `convert`) or compilation (stage `compile`) failed.
            OutOfMemory: Memory ran out.
        """
        require_packages(cell.device.id)
        require_known(cell.dtype, cell.device)
        require_device(cell.device)
        confirm_precision(cell.device, cell.dtype)
        builder = Builder(self.runtime, source, cell.device, cell.dtype)
        graphs = Graphs(builder)
        graph = graphs.graph(source.sample().forward)
        return GraphModel(builder, graphs, _placement(cell, graph, reused=builder.reused > 0))


def _placement(cell: Cell, graph: Graph, *, reused: bool) -> Placement:
    compiled: Any = graph.compiled
    fallback = compiled.fallback()
    details = {
        **_device_facts(cell.device),
        "shapes": graph.conversion.shapes,
        "shapes_tried": graph.conversion.problems,
        "convert_cached": reused,
        "nodes": compiled.nodes.counts,
        "cpu_fallback": {"nodes": sum(fallback.values()), "operators": fallback},
        "precision_read_from": "the graph that runs" if compiled.final is not None else "a product that was computed",
        "session_options": {"graph_optimization_level": "ORT_ENABLE_ALL", **OPTIONS},
        "converter": graph.conversion.metadata.packages,
    }
    if fallback and compiled.devices() != (cell.device.target,):
        products = compiled.products_on_cpu() or fallback
        named = ", ".join(f"{count} {operator}" for operator, count in products.items())
        details["why_elsewhere"] = f"{provider_of(cell.device).name} leaves {named} to it"
    if compiled.final is not None:
        details["operators"] = compiled.final.operators
        details["inserted_casts"] = compiled.final.inserted_casts()
        details["product_weights"] = compiled.final.product_weights(convolutions=cell.dtype != INT8)
    if cell.dtype == INT8:
        details["compression"] = compression_facts()
    return Placement(
        cell.device.id,
        compiled.devices(),
        cell.dtype,
        compiled.effective_dtype(cell.dtype),
        implementation="emulated" if _is_emulated(cell.device) else "real",
        details=details,
    )


def _device_facts(device: Device) -> dict[str, Any]:
    facts: dict[str, Any] = {"onnxruntime": ort.__version__, "provider": provider_of(device).name}
    options = options_of(device)
    if options:
        facts["provider_options"] = options
    hardware = hardware_of(device)
    return {**facts, "hardware": hardware} if hardware else facts


def _is_emulated(device: Device) -> bool:
    """Whether a GPU's provider runs on the CPU: a software adapter, which its maker allows on request only."""
    return device.target.startswith("WebGPU") and hardware_of(device).get("type") == "CPU"


def _without_path(message: str) -> str:
    """Leave out which file it was: it lies in a cache, and its name says nothing."""
    return re.sub(r"Load model from .*? failed: ?", "", message)
