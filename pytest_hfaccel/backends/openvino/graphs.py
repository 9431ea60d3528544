"""The compiled graphs of one model: one for most models, more where a graph cannot take every shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import openvino as ov

from pytest_hfaccel.backends.base import ModelSource
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.openvino.compiling import compile_program, constant_bytes
from pytest_hfaccel.backends.openvino.compression import INT8, compressed
from pytest_hfaccel.backends.openvino.converted import Converted, ConvertedModels, compressed_key, conversion_key
from pytest_hfaccel.backends.openvino.export import export_model
from pytest_hfaccel.backends.openvino.precomputed import Precomputing
from pytest_hfaccel.backends.openvino.requests import open_request
from pytest_hfaccel.backends.openvino.shapes import FOLDED, PIXELS, same_batch, signature, widened
from pytest_hfaccel.backends.outputs import flatten_outputs
from pytest_hfaccel.core.spec import Device, ModelSpec

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]
    Edit = Callable[[ov.Model], ov.Model]

STATIC_ONLY = frozenset({"NPU"})
"""Devices whose compiler takes static shapes only."""

_COMPARING = "zero-shot"
"""How the tasks of models begin that take text and images side by side: these do not loop over the batch."""


class Graph:
    """A converted model, compiled for a device.

    Attributes:
        converted: What was compiled.
        compiled: OpenVINO's compiled model.
        nbytes: Bytes of its constants.
        follows_batch: Whether it may be run at a batch it was not traced with; see `follows_batch`.
    """

    def __init__(self, converted: Converted, program: ov.Model, compiled: Any) -> None:
        from transformers.exporters.runners.runner_openvino import OpenVINOModelRunner

        self.converted = converted
        self.compiled = compiled
        self.nbytes = constant_bytes(program)
        self.follows_batch = follows_batch(program)
        self._runner = OpenVINOModelRunner(compiled, converted.metadata)
        self._runner.request = open_request(compiled)
        self._traced = converted.metadata.kwargs

    @property
    def names(self) -> frozenset[str]:
        """The inputs it was traced with."""
        return frozenset(self._traced)

    def run(self, inputs: Tensors) -> Any:
        """Run it once; returns the class's `ModelOutput`.

        Args:
            inputs: The inputs of the call, with those that are computed of them.
        """
        import torch

        cast = {
            name: tensor.to(getattr(torch, self._traced[name]["dtype"]))
            for name, tensor in inputs.items()
            if name not in FOLDED and "dtype" in self._traced.get(name, {})
        }
        return self._runner(**cast)

    def was_traced_with_batch_of(self, inputs: Tensors) -> bool:
        """Whether the example inputs had as many rows as these."""
        return same_batch(inputs, {name: facts["shape"] for name, facts in self._traced.items() if "shape" in facts})


class Graphs:
    """Finds, converts and compiles the graph a call needs.

    The first graph serves every batch and text length. A call with other inputs (an extra mask), other values of an
    input that is a constant of the graph, or a batch size the model's code unrolls over gets a graph of its own.

    Args:
        source: The checkpoint.
        device: The device.
        dtype: The precision to compute at.
        edit: Changes a converted model before it is compiled, for the canary.
    """

    def __init__(self, source: ModelSource, device: Device, dtype: str, edit: Edit | None = None) -> None:
        self._source = source
        self._device = device
        self._dtype = dtype
        self._edit = edit
        self._store = ConvertedModels(source.cache_dir / "openvino")
        self._graphs: dict[str, Graph] = {}
        self._fixed_batch: set[str] = set()
        self._precomputing = Precomputing(source)
        self._static = device.target.partition(".")[0] in STATIC_ONLY
        self.timings: dict[str, float] = {}
        self.reused = 0

    @property
    def loaded(self) -> list[Graph]:
        """The graphs in memory, the oldest first."""
        return list(self._graphs.values())

    @property
    def takes_any_batch(self) -> bool:
        """Whether no call has met a graph that is tied to a batch size."""
        return not self._fixed_batch and not self._static

    def edited(self, edit: Edit) -> Graphs:
        """Return the same graphs with a change made to each of them before it is compiled."""
        return Graphs(self._source, self._device, self._dtype, edit)

    def run(self, inputs: Tensors) -> Any:
        """Run the model on inputs of any shape it takes; returns the class's `ModelOutput`."""
        added = self._precomputing.added(inputs)
        if added:
            return self._run_on(inputs, static=True, added=added)
        general = signature(inputs, exact=self._static, fixed_batch=False)
        graph = self._graph(inputs, static=self._static)
        same_batch_as_traced = self._static or graph.was_traced_with_batch_of(inputs)
        unrolls = general in self._fixed_batch or not graph.follows_batch or _unrolls(self._source.spec, inputs)
        if unrolls and not same_batch_as_traced:
            self._fixed_batch.add(general)
            return self._run_on(inputs, static=self._static, fixed_batch=True)
        try:
            output = self._run_on(inputs, static=self._static)
        except RuntimeError:
            if same_batch_as_traced:
                raise
        else:
            # A graph may take a batch it was not traced for, and return an output of the traced batch's shape.
            if same_batch_as_traced or has_rows_of(inputs, output):
                return output
        self._graphs.pop(general, None)
        # The model's code unrolls over the batch (a Python loop over images): trace it for this batch size.
        output = self._run_on(inputs, static=self._static, fixed_batch=True)
        self._fixed_batch.add(general)
        return output

    def graph(self, inputs: Tensors) -> Graph:
        """Return the compiled graph for inputs like these.

        Raises:
            LoadError: It cannot be converted (stage `convert`) or compiled (stage `compile`).
            BackendUnavailable: The device would compute at another precision.
            OutOfMemory: Memory ran out.
        """
        return self._graph(inputs, static=self._static or bool(self._precomputing.added(inputs)))

    def _graph(self, inputs: Tensors, *, static: bool, fixed_batch: bool = False) -> Graph:
        kind = signature(inputs, exact=static, fixed_batch=fixed_batch)
        if kind not in self._graphs:
            self._graphs[kind] = self._compile(self._convert(inputs, kind, fixed_batch, static))
        return self._graphs[kind]

    def _run_on(self, inputs: Tensors, *, static: bool, fixed_batch: bool = False, added: Tensors | None = None) -> Any:
        """Run the graph of that kind, and drop it when it fails."""
        graph = self._graph(inputs, static=static, fixed_batch=fixed_batch)
        try:
            return graph.run({**inputs, **(added or {})})
        except RuntimeError:
            # A compiled model that failed half-way fails on good shapes, too (CPU plugin of 2026.4): compile anew.
            del self._graphs[signature(inputs, exact=static, fixed_batch=fixed_batch)]
            raise

    def close(self) -> None:
        """Free the compiled graphs."""
        self._graphs.clear()

    def _convert(self, inputs: Tensors, kind: str, fixed_batch: bool, static: bool) -> Converted:
        key = conversion_key(self._source.fingerprint, kind)
        # A change is made to the weights as they were; they are compressed after it.
        compress = self._dtype == INT8 and self._edit is None
        wanted = compressed_key(key) if compress else key
        started = time.perf_counter()
        self.reused += self._store.has(wanted)
        if not self._store.has(wanted) and not self._store.has(key):
            examples = dict(inputs) if static else widened(inputs, fixed_batch=fixed_batch)

            def export() -> tuple[Any, str, list[str]]:
                with out_of_memory_raised(self._device.id, "convert"):
                    return export_model(self._source.torch_model("fp32"), examples, static=self._static)

            self._store.make(key, export)
            self._add_time("convert", started)
        started = time.perf_counter()
        if not self._store.has(wanted):
            self._store.make_compressed(key, self._source.spec.architecture)
            self._add_time("convert", started)
        self.timings.setdefault("convert", 0.0)
        started = time.perf_counter()
        converted = self._store.read(wanted)
        self._add_time("load", started)
        return converted

    def _compile(self, converted: Converted) -> Graph:
        program = self._edit(converted.program) if self._edit else converted.program
        if self._edit and self._dtype == INT8:
            program = compressed(program, self._source.spec.architecture)
        started = time.perf_counter()
        compiled = compile_program(program, self._device, self._dtype, self._source.spec.architecture)
        self._add_time("compile", started)
        return Graph(converted, program, compiled)

    def _add_time(self, stage: str, started: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started


def _unrolls(spec: ModelSpec, inputs: Tensors) -> bool:
    """Whether a model may loop over the images of a batch in Python, so that a graph holds for the traced batch only.

    Language models that see or hear do. They are not tried at another batch: with one thread the CPU plugin of 2026.4
    does not refuse it, gives outputs that may even be right, and the next run of the graph ends in a segmentation
    fault.
    """
    return "input_ids" in inputs and bool(PIXELS & inputs.keys()) and not spec.task.startswith(_COMPARING)


def has_rows_of(inputs: Tensors, output: Any) -> bool:
    """Whether some output has as many rows as the inputs have samples."""
    rows = {tensor.shape[0] for name, tensor in inputs.items() if name not in FOLDED and tensor.ndim}
    return any(leaf.shape[0] in rows for leaf in flatten_outputs(output).values() if leaf.ndim)


def follows_batch(program: ov.Model) -> bool:
    """Whether a graph that takes any batch also returns it.

    A model whose code loops over the rows of the batch is traced into a graph whose inputs may have any number of rows
    and whose outputs all have that of the trace. To run it at another one is not an error for the CPU plugin of 2026.4
    with one thread, but a segmentation fault.
    """
    takes_any = any(_is_dynamic(port) for port in program.inputs)
    return not takes_any or any(_is_dynamic(port) for port in program.outputs)


def _is_dynamic(port: Any) -> bool:
    shape = port.get_partial_shape()
    return bool(shape.rank.is_dynamic or (shape.rank.get_length() and shape[0].is_dynamic))
