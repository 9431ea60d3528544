"""ExecuTorch: programs for XNNPACK at the asked precision, what XNNPACK did not take counted and named.

`ExecuTorchRuntime` and `ExecuTorchGraph` are what `pytest_hfaccel.backends.exported` asks of a runtime.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pytest_hfaccel.backends.base import INT8, ModelSource, Placement
from pytest_hfaccel.backends.executorch.programs import PORTABLE, XNNPACK, Program
from pytest_hfaccel.backends.exported import OneRuntime
from pytest_hfaccel.backends.exported.graphs import Builder, Graph, Graphs
from pytest_hfaccel.backends.exported.inputs import SAMPLES
from pytest_hfaccel.backends.exported.model import GraphModel
from pytest_hfaccel.backends.memory import ProcessMemory, out_of_memory_raised
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.core.presence import installed_version
from pytest_hfaccel.core.spec import Cell, Device
from pytest_hfaccel.upstream.executorch import (
    decompose_once,
    executorch_runner,
    is_manager,
    quiet,
    retrace_changed_only,
    runtime,
    use_threads,
)

INSTALL = "pip install 'pytest-hfaccel[executorch]'"

LARGEST_BATCH = 8
LONGEST_TEXT = 512
"""The largest shapes that a program is made for. ExecuTorch sets memory aside for them when it loads the program."""


class ExecuTorchRuntime:
    """See `pytest_hfaccel.backends.exported.ExportedRuntime`; a program is a `Program`, or the exporter's."""

    name = "executorch"
    title = "ExecuTorch"
    packages: tuple[str, ...] = ("executorch",)

    def convert(self, model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any], *, stateful: bool) -> Any:
        """Trace and lower a model for XNNPACK. Open axes get an upper bound."""
        if stateful:
            raise LoadError(
                "the ExecuTorch backend makes no program that keeps a key-value cache: the length of the cache would "
                "have to be fixed beforehand.",
                stage="convert",
            )
        if options.get("dynamic"):
            raise ValueError("ExecuTorch sets memory aside for the largest shapes, and without bounds there are none")
        runtime()
        from transformers.exporters import ExecutorchConfig, ExecutorchExporter

        options = dict(options)
        if "dynamic_shapes" in options:
            options["dynamic_shapes"] = _with_bounds(options["dynamic_shapes"], inputs)
        with contextlib.redirect_stdout(io.StringIO()), retrace_changed_only, decompose_once:
            return ExecutorchExporter().export(model, dict(inputs), ExecutorchConfig(backend="xnnpack", **options))

    def read(self, path: Path) -> Program:
        """Read a program; its constants are mapped, not copied."""
        return Program(path)

    def write(self, program: Program, path: Path) -> None:
        """Write a program."""
        path.write_bytes(program.data)

    def takes_static_shapes_only(self, device: Device) -> bool:  # noqa: ARG002 - there is one
        """Whether no axis can stay open: some can."""
        return False

    def compile(self, program: Any, device: Device, dtype: str, architecture: str) -> ExecuTorchGraph:
        """Load a program, and read back at which precision XNNPACK multiplies."""
        if is_manager(program):
            program = Program(program.buffer)
        try:
            with out_of_memory_raised(device.id, "compile"):
                graph = ExecuTorchGraph(program)
        except RuntimeError as error:
            raise LoadError(f"{architecture} cannot be loaded by ExecuTorch: {error}", stage="compile") from error
        real = graph.effective_dtype(dtype)
        if real != dtype:
            raise BackendUnavailable(
                f"{device}: asked for {dtype}, but XNNPACK's products are in {real}: "
                f"{program.product_weights() or 'none'} (elements of their weights by type).",
                stage="compile",
                hint="Test it at fp32.",
            )
        return graph

    def compress(self, program: Program, architecture: str) -> Program:
        """Refuse: see `require_known`."""
        raise NotImplementedError

    def compression_facts(self) -> dict[str, Any]:
        """Refuse: see `require_known`."""
        raise NotImplementedError

    def holds_weight(self, program: Program, weights: Mapping[str, Any], name: str) -> bool:
        """Return whether `edit_constant` can change a weight."""
        return program.holds_weight(weights, name)

    def edit_constant(self, program: Program, weights: Mapping[str, Any], change: Any) -> Program:
        """Return a copy of a program with one weight changed."""
        return program.edited(weights, change)

    def memory(self, device: Device) -> ProcessMemory:  # noqa: ARG002 - ExecuTorch keeps no count
        """Return the process's memory."""
        return ProcessMemory()


class ExecuTorchGraph:
    """See `pytest_hfaccel.backends.exported.CompiledGraph`.

    Args:
        program: What is loaded.

    Attributes:
        program: As given.
        nbytes: Bytes of the constants.
        follows_batch: Whether a program that takes several shapes also returns several.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nbytes = program.nbytes
        self.follows_batch = program.follows_batch
        use_threads(torch.get_num_threads())
        self._loaded = runtime().load_program(program.path or bytes(program.data))
        self._loaded.load_method("forward")

    def runner(self, metadata: Any) -> Callable[..., Any]:
        """Return transformers' runner."""
        return executorch_runner(self._loaded, metadata)

    def decoder(self) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
        """Refuse: `convert` makes no program with a cache."""
        raise NotImplementedError

    def effective_dtype(self, requested: str) -> str:  # noqa: ARG002
        """Return the dtype of the weights of XNNPACK's products; fp32 where it has none, as the other kernels have."""
        return "/".join(sorted(self.program.product_weights())) or "fp32"


class ExecuTorchBackend(OneRuntime):
    """Serves `executorch:XNNPACK`."""

    name = "executorch"
    runtime = ExecuTorchRuntime()

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Lower a product of two matrices and compute it; as `DeviceProbe.confirm`."""
        require_device(device)
        require_known(dtype, device)
        require_product(device)
        return device_facts()

    def load(self, cell: Cell, source: ModelSource) -> GraphModel:
        """Convert the checkpoint, unless that has been done, and load the program.

        Raises:
            BackendUnavailable: ExecuTorch or XNNPACK is not there, or computes at another precision.
            LoadError: Conversion (stage `convert`) or loading (stage `compile`) failed.
            OutOfMemory: Memory ran out.
        """
        require_device(cell.device)
        require_known(cell.dtype, cell.device)
        builder = Builder(self.runtime, source, cell.device, cell.dtype)
        graphs = Graphs(builder)
        graph = graphs.graph(source.sample().forward)
        return GraphModel(builder, graphs, _placement(cell, graph, reused=builder.reused > 0))


def require_device(device: Device) -> None:
    """Make sure that ExecuTorch is installed and has XNNPACK.

    Raises:
        BackendUnavailable: It is not, or has not.
    """
    if installed_version("executorch") is None:  # a folder of that name could be imported, too
        raise BackendUnavailable(
            f"{device}: executorch is not installed.", stage="load", hint=f"{INSTALL} installs it."
        )
    with quiet():
        names = runtime().backend_registry.registered_backend_names
    if "XnnpackBackend" not in names:
        raise BackendUnavailable(
            f"{device}: ExecuTorch {version('executorch')} has no XNNPACK here. It has: {', '.join(names) or 'none'}.",
            stage="load",
        )


def require_known(dtype: str, device: Device) -> None:
    """Make sure that programs are made at a dtype.

    Raises:
        BackendUnavailable: They are not.
    """
    if dtype == INT8:
        raise BackendUnavailable(
            f"{device} does not run int8: PT2E rounds the weights between the trace and the lowering, and fails there "
            "on BERT and GPT-2, with XNNPACK's quantizer of ExecuTorch 1.5 under transformers 5.23.",
            stage="load",
            hint="Test it at fp32.",
        )
    if dtype != "fp32":
        raise BackendUnavailable(
            f"{device} does not run {dtype}: programs are made of models in fp32, and ExecuTorch's kernels compute at "
            "the type of the program.",
            stage="load",
            hint="Test it at fp32.",
        )


def require_product(device: Device) -> None:
    """Lower and run one product of matrices.

    Raises:
        LoadError: XNNPACK does not take it, or computes something else.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    size = 16
    layer = torch.nn.Linear(size, size, bias=False).requires_grad_(False)
    torch.nn.init.ones_(layer.weight)
    ones = torch.ones(size, size)
    with quiet(), tempfile.TemporaryDirectory(prefix="hfaccel-"):
        exported = torch.export.export(layer, (ones,))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    program = Program(lowered.buffer)
    if program.portable or "FullyConnected" not in program.xnnpack:
        raise LoadError(f"{device}: XNNPACK does not take a product of two matrices", stage="compile")
    (product,) = runtime().load_program(program.data).load_method("forward").execute([ones])
    if float(product.sum()) != size**3:
        raise LoadError(f"{device}: a product of two matrices of ones sums to {float(product.sum())}", stage="compile")


def device_facts() -> dict[str, Any]:
    """Return the versions of what runs a program."""
    return {"executorch": version("executorch"), "threads": torch.get_num_threads()}


def _with_bounds(axes: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Give every open axis a largest size: four times that of the example inputs, or what is usual for a test.

    The length of sounds stays closed: XNNPACK 1.5 fails to follow it through one-dimensional convolutions.
    """

    def bound(name: str, axis: int) -> int:
        usual = LARGEST_BATCH if axis == 0 else LONGEST_TEXT
        size: int = inputs[name].shape[axis]
        return max(usual, 4 * size)

    return {
        name: {axis: hint(max=bound(name, axis)) for axis, hint in of_input.items() if axis == 0 or name not in SAMPLES}
        if isinstance(of_input, dict)
        else of_input
        for name, of_input in axes.items()
    }


def _placement(cell: Cell, graph: Graph, *, reused: bool) -> Placement:
    compiled: Any = graph.compiled
    program: Program = compiled.program
    products = program.portable_products()
    details = {
        **device_facts(),
        "shapes": graph.conversion.shapes,
        "shapes_tried": graph.conversion.problems,
        "convert_cached": reused,
        "nodes": {XNNPACK: sum(program.xnnpack.values()), PORTABLE: sum(program.portable.values())},
        "xnnpack": {"subgraphs": program.subgraphs, "operators": program.xnnpack},
        "cpu_fallback": {"nodes": sum(program.portable.values()), "operators": program.portable},
        "product_weights": program.product_weights(),
        "planned_bytes": program.planned_bytes,
        "converter": graph.conversion.metadata.packages,
    }
    if products:
        named = ", ".join(f"{count} {operator}" for operator, count in products.items())
        details["products_outside_xnnpack"] = products
        details["why_elsewhere"] = f"XNNPACK leaves {named} to it"
    devices = ((XNNPACK,) if program.xnnpack else ()) + ((PORTABLE,) if products or not program.xnnpack else ())
    return Placement(cell.device.id, devices, cell.dtype, compiled.effective_dtype(cell.dtype), details=details)
