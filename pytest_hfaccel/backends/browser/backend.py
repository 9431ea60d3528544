"""Models in a browser: converted to ONNX, served from this machine, run by onnxruntime-web in a page."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pytest_hfaccel.backends.base import ModelSource, Placement
from pytest_hfaccel.backends.browser.browser import Browser, browser_for
from pytest_hfaccel.backends.browser.installed import find_installation, transformers_js_version
from pytest_hfaccel.backends.browser.runtime import BrowserGraph, BrowserRuntime
from pytest_hfaccel.backends.exported.graphs import Builder, Graph, Graphs
from pytest_hfaccel.backends.exported.model import GraphModel
from pytest_hfaccel.backends.exported.onnx_programs import require_packages, serialized
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Cell, Device

_PROBE_SIZE, _PROBE_OPSET, _PROBE_IR = 64, 20, 10
_FP32_ERROR = 1e-6
"""Largest relative error of a product of 64 x 64 numbers in fp32. TF32 and fp16 are off by 2e-4, bf16 by 2e-3."""

_SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "softpipe", "warp", "basic render")
"""What adapters call themselves that compute on the CPU."""

_WHY_NOT = {
    "int8": "no quantizer for onnxruntime-web is built in",
    "bf16": "onnxruntime-web has no bf16 arithmetic",
    "fp16": "the graphs that are made for browsers are in fp32",
}


def is_software(adapter: Mapping[str, Any]) -> bool:
    """Whether a WebGPU adapter computes on the CPU. One that does not say what it is counts as software."""
    names = " ".join(str(adapter.get(key) or "") for key in ("vendor", "architecture", "device", "description")).lower()
    if adapter.get("is_fallback") or any(sign in names for sign in _SOFTWARE):
        return True
    return not (adapter.get("vendor") and (adapter.get("architecture") or adapter.get("description")))


class BrowserBackend:
    """Serves `wasm`, `webgpu` and `webnn`."""

    name = "browser"

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Ask the browser what it has, and compute a product on the device; as `DeviceProbe.confirm`."""
        browser = _browser(device)
        require_packages(device.id)
        require_fp32(device, dtype, {})
        facts = _computes_in_fp32(device)
        return {**facts, "browser": browser.version}

    @contextmanager
    def runtime_on(self, device: Device) -> Iterator[BrowserRuntime]:
        """Give what converts and compiles, with a page of its own that is closed with the `with` block."""
        runtime = BrowserRuntime(_browser(device), device, torch.get_num_threads(), {}, fix_shapes=False)
        try:
            yield runtime
        finally:
            runtime.close()

    def load(self, cell: Cell, source: ModelSource) -> BrowserModel:
        """Convert the checkpoint, unless that has been done, and open it in a page of its own.

        Raises:
            BackendUnavailable: The browser, or this device in it, is not there, or computes at another precision.
            LoadError: Conversion (stage `convert`) or opening (stage `compile`) failed.
            OutOfMemory: Memory ran out.
            DeviceCrashed: The page or its browser died.
        """
        device = cell.device
        browser = _browser(device)
        require_packages(device.id)
        _computes_in_fp32(device)
        inputs = source.sample().forward
        runtime = BrowserRuntime(browser, device, torch.get_num_threads(), inputs)
        try:
            page = runtime.page()
            require_fp32(device, cell.dtype, page.facts)
            facts = device_facts(device, page.facts)
            builder = Builder(runtime, source, device, cell.dtype)
            graphs = Graphs(builder)
            graph = _open_graph(graphs, inputs)
            details = {
                **facts,
                "browser": browser.version,
                "threads": runtime.threads if page.facts["threads"] else 1,
                "shapes": graph.conversion.shapes,
                "shapes_tried": graph.conversion.problems,
                "convert_cached": builder.reused > 0,
                "converter": graph.conversion.metadata.packages,
            }
            compiled: BrowserGraph = graph.compiled  # type: ignore[assignment]
            return BrowserModel(builder, graphs, placement_of(cell, compiled, details), runtime)
        except Exception:
            runtime.close()
            raise


def _open_graph(graphs: Graphs, inputs: Mapping[str, torch.Tensor]) -> Graph:
    """Return the graph that runs these inputs, with a session of it open.

    Compiling opens one where the graph takes the inputs as they are. Some graphs take others, which are computed of
    these, and some are for a batch of another size: then a run opens it, and counts as compiling.
    """
    graph = graphs.graph(inputs)
    if not graph.compiled.sessions:  # type: ignore[attr-defined]
        timings, before, started = graphs.timings, sum(graphs.timings.values()), time.perf_counter()
        graphs.run(inputs)
        timings["compile"] += time.perf_counter() - started - (sum(timings.values()) - before)
        graph = next(each for each in graphs.loaded if each.compiled.sessions)  # type: ignore[attr-defined]
    return graph


def placement_of(cell: Cell, graph: BrowserGraph, details: Mapping[str, Any]) -> Placement:
    """Return where a graph runs, as the browser and onnxruntime-web say.

    Args:
        cell: What was asked for.
        graph: The graph; a session of it is open.
        details: What is known of the browser.
    """
    session = next(iter(graph.sessions.values()))
    nodes = session.nodes
    facts = {**details, "onnxruntime-web": session.facts["version"], "nodes": nodes.by_provider}
    if nodes.on_cpu:
        facts["nodes_on_cpu"] = nodes.on_cpu
    implementation = "real"
    if cell.device.kind == "webgpu":
        # The adapter that the session computes on, not the one that the page found.
        adapter = session.facts["adapter"] or {}
        facts |= {"adapter": adapter, "name": adapter.get("description") or adapter.get("architecture") or ""}
        implementation = "emulated" if is_software(adapter) else "real"
    return Placement(
        cell.device.id,
        (nodes.mostly_on or cell.device.kind,),
        cell.dtype,
        graph.effective_dtype(cell.dtype),
        implementation=implementation,
        details=facts,
    )


class BrowserModel(GraphModel):
    """A model in a page; see `pytest_hfaccel.backends.base.LoadedModel`."""

    def __init__(self, builder: Builder, graphs: Graphs, placement: Placement, runtime: BrowserRuntime) -> None:
        super().__init__(builder, graphs, placement)
        self._runtime = runtime

    def run_seconds(self) -> float | None:
        """What the page measured of the last run: `session.run` and reading the outputs back, without the way there."""
        return self._runtime.run_seconds

    def transformers_js(self, task: str, positional: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Return what the pipeline of transformers.js makes of a task with this checkpoint, in the page.

        Args:
            task: The pipeline.
            positional: Positional arguments of its call: texts and PIL images.
            options: Its options, by the names that transformers.js has for them.

        Raises:
            BackendUnavailable: transformers.js is not installed.
            RuntimeError: It fails; the text is that of the exception in the page.
        """
        version = transformers_js_version(self._runtime.device)
        program = self._graphs.graph(self._source.sample().forward).conversion.program
        with tempfile.TemporaryDirectory(prefix="hfaccel-") as name:
            folder = Path(name)
            for file in self._source.directory.glob("*.json"):
                shutil.copyfile(file, folder / file.name)
            (folder / "onnx").mkdir()
            (folder / "onnx" / "model.onnx").write_bytes(serialized(program))
            arguments = [_in_page(argument, folder) for argument in positional]
            result = self._runtime.pipeline_in_page(folder, task, arguments, dict(options))
        self._placement.details["transformers.js"] = version
        return result

    def close(self) -> None:
        """Close the page, and with it all that it holds."""
        super().close()
        self._runtime.close()


@lru_cache(maxsize=8)
def _computes_in_fp32(device: Device) -> dict[str, Any]:
    """Compute a product in the browser, and return what it says about the device.

    Nothing in a browser tells at which precision it computes, and hardware has several for numbers of 32 bits.

    Raises:
        BackendUnavailable: The browser has no such device, or it computes at a lower precision.
        LoadError: It cannot compute at all.
    """
    rows, columns = torch.randn(2, _PROBE_SIZE, _PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    runtime = BrowserRuntime(_browser(device), device, 1, {"x": rows})
    try:
        facts = device_facts(device, runtime.page().facts)
        graph = runtime.compile(product_graph(columns), device, "fp32", "a product of two matrices")
        found = graph.run({"x": rows})["y"].double()
    finally:
        runtime.close()
    exact = rows.double() @ columns.double()
    error = float((found - exact).norm() / exact.norm())
    if not error <= _FP32_ERROR:
        raise BackendUnavailable(
            f"{device}: asked for fp32, but a product of two matrices is off by {error:.1e}: it is computed at a lower "
            "precision.",
            stage="compile",
        )
    return {**facts, "product_error": error}


def product_graph(weight: torch.Tensor) -> Any:
    """Return a graph that multiplies `x` by a matrix."""
    import onnx
    import onnx_ir

    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(weight.shape)) for name in "xy"]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    constant = onnx.numpy_helper.from_array(weight.numpy(), "w")
    graph = onnx.helper.make_graph([node], "product", sides[:1], sides[1:], [constant])
    opset = onnx.helper.make_opsetid("", _PROBE_OPSET)
    return onnx_ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_PROBE_IR))


def _in_page(argument: Any, folder: Path) -> Any:
    """Return an argument as JSON: an image is a file beside the model."""
    if not hasattr(argument, "save"):
        return argument
    argument.save(folder / "input.png")
    return {"image": "input.png"}


def _browser(device: Device) -> Browser:
    if device.target:
        raise BackendUnavailable(f"{device}: {device.kind} has no further names; write {device.kind}")
    return browser_for(find_installation(device))


def device_facts(device: Device, page: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a browser says about one of its devices.

    Raises:
        BackendUnavailable: It has no such device.
    """
    if device.kind == "wasm":
        return {"isolated": page["threads"]}
    found = page.get(device.kind)
    if not found:
        raise BackendUnavailable(f"{device}: the browser has none: {page[f'{device.kind}_problem']}", stage="load")
    if device.kind == "webgpu":
        adapter = found["adapter"]
        name = adapter.get("description") or adapter.get("architecture") or ""
        implementation = "emulated" if is_software(adapter) else "real"
        return {"name": name, "adapter": adapter, "implementation": implementation}
    # On Linux and in headless Chromium it is TFLite that serves WebNN, on the CPU whatever device type is asked for.
    return {"runtime": "webnn(tflite,cpu)", **found}


def require_fp32(device: Device, dtype: str, page: Mapping[str, Any]) -> None:
    """Refuse what would not be computed at the asked precision."""
    if dtype == "fp32":
        return
    reason = _WHY_NOT[dtype]
    if dtype == "fp16" and device.kind == "webgpu" and not (page.get("webgpu") or {}).get("fp16"):
        reason = "the adapter has no shader-f16 (SwiftShader, the software adapter, never has)"
    raise BackendUnavailable(f"{device} does not run {dtype}: {reason}.", stage="load", hint="Test it at fp32.")
