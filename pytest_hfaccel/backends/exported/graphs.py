"""The compiled graphs of one model: one for most models, more where a graph cannot take every shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pytest_hfaccel.backends.base import INT8, ModelSource, flatten_outputs
from pytest_hfaccel.backends.exported import CompiledGraph, ExportedRuntime
from pytest_hfaccel.backends.exported.capture import export_decoder, export_model
from pytest_hfaccel.backends.exported.conversions import Conversion, Conversions, Export
from pytest_hfaccel.backends.exported.inputs import FOLDED, PIXELS, ComputedInputs, same_batch, signature, widened
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.core.spec import Device, ModelSpec
from pytest_hfaccel.core.stages import at_stage, note_detail
from pytest_hfaccel.upstream.transformers import traced_names, traced_tensors

Tensors = Mapping[str, torch.Tensor]
Edit = Callable[[Any], Any]

_COMPARING = "zero-shot"
"""How the tasks of models begin that take text and images side by side: these do not loop over the batch."""


class Graph:
    """A converted model, compiled for a device.

    Attributes:
        conversion: What was compiled.
        compiled: The runtime's compiled graph.
        names: The inputs it was traced with.
    """

    def __init__(self, conversion: Conversion, compiled: CompiledGraph) -> None:
        self.conversion = conversion
        self.compiled = compiled
        self.names = traced_names(conversion.metadata)
        self._run = compiled.runner(conversion.metadata)
        self._traced = traced_tensors(conversion.metadata)

    def run(self, inputs: Tensors) -> Any:
        """Run it once; returns the class's `ModelOutput`.

        Args:
            inputs: The inputs of the call, with those that are computed of them.
        """
        return self._run(**self.feed(inputs))

    def feed(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Return what the graph takes of the inputs of a call, in the dtypes of the trace."""
        return {
            name: tensor.to(self._traced[name].dtype)
            for name, tensor in inputs.items()
            if name not in FOLDED and name in self._traced
        }

    def was_traced_with_batch_of(self, inputs: Tensors) -> bool:
        """Whether the example inputs had as many rows as these."""
        return same_batch(inputs, {name: traced.shape for name, traced in self._traced.items()})


class Builder:
    """Converts, unless that has been done, and compiles a checkpoint for a device.

    Args:
        runtime: The runtime.
        source: The checkpoint.
        device: The device.
        dtype: The precision to compute at.
    """

    def __init__(self, runtime: ExportedRuntime, source: ModelSource, device: Device, dtype: str) -> None:
        self.runtime = runtime
        self.source = source
        self.device = device
        self.dtype = dtype
        self.timings: dict[str, float] = {}
        self.reused = 0
        self._store = Conversions(runtime, source.cache_dir)

    def anew(self) -> Builder:
        """Return one that has built nothing yet, with timings of its own."""
        return Builder(self.runtime, self.source, self.device, self.dtype)

    def convert(self, signature: str, export: Export, *, compress: bool) -> Conversion:
        """Read a conversion, which is made first where it is not there.

        Args:
            signature: What calls must have in common to share it.
            export: Makes it.
            compress: Round its weights to 8 bits.
        """
        key = self._store.key(self.source.fingerprint, signature)
        wanted = self._store.compressed_key(key) if compress else key
        started = time.perf_counter()
        if self._store.has(wanted):
            self.reused += 1
            self.timings.setdefault("convert", 0.0)
        else:
            if not self._store.has(key):
                with at_stage("convert"), out_of_memory_raised(self.device.id, "convert"):
                    self._store.make(key, export)
            if compress:
                with at_stage("convert"):
                    note_detail("8-bit weights")
                    self._store.make_compressed(key, self.source.spec.architecture)
            self._add_time("convert", started)
        started = time.perf_counter()
        conversion = self._store.read(wanted)
        self._add_time("load", started)
        return conversion

    def compile(self, program: Any) -> CompiledGraph:
        """Compile a program; see `ExportedRuntime.compile`."""
        started = time.perf_counter()
        with at_stage("compile"):
            compiled = self.runtime.compile(program, self.device, self.dtype, self.source.spec.architecture)
        self._add_time("compile", started)
        return compiled

    def _add_time(self, stage: str, started: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started


class Graphs:
    """Finds, converts and compiles the graph a call needs.

    The first graph serves every batch and text length. A call with other inputs (an extra mask), other values of an
    input that is a constant of the graph, or a batch size the model's code unrolls over gets a graph of its own.

    Args:
        builder: Makes them.
        edit: Changes a program before it is compiled, for the canary.
    """

    def __init__(self, builder: Builder, edit: Edit | None = None) -> None:
        self._builder = builder
        self._edit = edit
        self._is_closed = False
        self._graphs: dict[str, Graph] = {}
        self._fixed_batch: set[str] = set()
        self._computed = ComputedInputs(builder.source)
        self._static = builder.runtime.takes_static_shapes_only(builder.device)
        self.timings = builder.timings

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
        return Graphs(self._builder.anew(), edit)

    def run(self, inputs: Tensors) -> Any:
        """Run the model on inputs of any shape it takes; returns the class's `ModelOutput`."""
        computed = self._computed.of(inputs)
        if computed:
            return self._run_on(inputs, static=True, computed=computed)
        general = signature(inputs, exact=self._static, fixed_batch=False)
        graph = self._graph(inputs, static=self._static)
        same_batch_as_traced = self._static or graph.was_traced_with_batch_of(inputs)
        unrolls = (
            general in self._fixed_batch
            or not graph.compiled.follows_batch
            or _may_unroll(self._builder.source.spec, inputs)
        )
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
            if same_batch_as_traced or _has_rows_of(inputs, output):
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
        return self._graph(inputs, static=self._static or bool(self._computed.of(inputs)))

    def conversion(self, inputs: Tensors) -> Conversion:
        """Return what `graph` compiles for inputs like these.

        Raises:
            LoadError: It cannot be converted.
            OutOfMemory: Memory ran out.
        """
        static = self._static or bool(self._computed.of(inputs))
        kind = signature(inputs, exact=static, fixed_batch=False)
        return self._convert(inputs, kind, static=static, fixed_batch=False)

    def feed(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Return what the graph for these inputs takes, with the inputs that are computed of others."""
        return self.graph(inputs).feed({**inputs, **self._computed.of(inputs)})

    def close(self) -> None:
        """Free the compiled graphs; no other is made."""
        self._is_closed = True
        self._graphs.clear()

    def _graph(self, inputs: Tensors, *, static: bool, fixed_batch: bool = False) -> Graph:
        if self._is_closed:
            raise RuntimeError("the model is closed")
        kind = signature(inputs, exact=static, fixed_batch=fixed_batch)
        if kind not in self._graphs:
            self._graphs[kind] = self._build(inputs, kind, static=static, fixed_batch=fixed_batch)
        return self._graphs[kind]

    def _run_on(
        self, inputs: Tensors, *, static: bool, fixed_batch: bool = False, computed: Tensors | None = None
    ) -> Any:
        """Run the graph of that kind, and drop it when it fails."""
        graph = self._graph(inputs, static=static, fixed_batch=fixed_batch)
        try:
            return graph.run({**inputs, **(computed or {})})
        except RuntimeError:
            # A compiled model that failed half-way fails on good shapes, too (OpenVINO's CPU plugin of 2026.4).
            del self._graphs[signature(inputs, exact=static, fixed_batch=fixed_batch)]
            raise

    def _convert(self, inputs: Tensors, kind: str, *, static: bool, fixed_batch: bool) -> Conversion:
        runtime, source = self._builder.runtime, self._builder.source

        def export() -> tuple[Any, str, list[str]]:
            examples = dict(inputs) if static else widened(inputs, fixed_batch=fixed_batch)
            return export_model(runtime, source.torch_model("fp32"), examples, static=self._static)

        # Runtimes that share conversions may differ in this: a graph traced for any shape can have the same signature.
        shared = f"static {kind}" if self._static else kind
        # A change is made to the weights as they were; they are compressed after it.
        return self._builder.convert(shared, export, compress=self._builder.dtype == INT8 and self._edit is None)

    def _build(self, inputs: Tensors, kind: str, *, static: bool, fixed_batch: bool) -> Graph:
        conversion = self._convert(inputs, kind, static=static, fixed_batch=fixed_batch)
        program = self._edit(conversion.program) if self._edit else conversion.program
        if self._edit and self._builder.dtype == INT8:
            program = self._builder.runtime.compress(program, self._builder.source.spec.architecture)
        return Graph(conversion, self._builder.compile(program))


def _may_unroll(spec: ModelSpec, inputs: Tensors) -> bool:
    """Whether a model may loop over the images of a batch in Python, so that a graph holds for the traced batch only.

    Language models that see or hear do. They are not tried at another batch: with one thread OpenVINO's CPU plugin of
    2026.4 does not refuse it, gives outputs that may even be right, and the next run of the graph ends in a
    segmentation fault.
    """
    return "input_ids" in inputs and bool(PIXELS & inputs.keys()) and not spec.task.startswith(_COMPARING)


def _has_rows_of(inputs: Tensors, output: Any) -> bool:
    """Whether some output has as many rows as the inputs have samples."""
    rows = {tensor.shape[0] for name, tensor in inputs.items() if name not in FOLDED and tensor.ndim}
    return any(leaf.shape[0] in rows for leaf in flatten_outputs(output).values() if leaf.ndim)


class CachedDecoder:
    """Decodes greedily on a graph that keeps the key-value cache as its state, one token per step after the prompt.

    Args:
        builder: Makes the graph.
        with_mask: Whether prompts are padded, so that the graph needs the attention mask.

    Raises:
        LoadError: The model cannot be converted so.
    """

    def __init__(self, builder: Builder, *, with_mask: bool) -> None:
        source = builder.source

        def export() -> tuple[Any, str, list[str]]:
            return export_decoder(builder.runtime, source.torch_model("fp32"), _prompts(source, with_mask))

        signature = f"decoder with{'' if with_mask else 'out'} mask"
        conversion = builder.convert(signature, export, compress=builder.dtype == INT8)
        self._compiled = builder.compile(conversion.program)
        self.timings = builder.timings
        self.nbytes = self._compiled.nbytes

    def generate(
        self, inputs: Tensors, max_new_tokens: int, watch: Callable[[torch.Tensor], Any] | None = None
    ) -> torch.Tensor:
        """Return the new token ids, int64 of shape (batch, max_new_tokens).

        Args:
            inputs: `input_ids` and, for padded prompts, `attention_mask`, both of shape (batch, tokens).
            max_new_tokens: Number of tokens to generate.
            watch: Gets the logits that each token is chosen by, (batch, vocabulary).
        """
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask", torch.ones_like(ids))
        step = self._compiled.decoder()
        new = []
        for _ in range(max_new_tokens):
            # Positions count real tokens, as transformers' generate counts them.
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            beams = torch.arange(ids.shape[0], dtype=torch.int32)
            logits = step({"input_ids": ids, "attention_mask": mask, "position_ids": positions, "beam_idx": beams})
            if watch is not None:
                watch(logits[:, -1].clone())
            ids = logits[:, -1].argmax(-1)[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            new.append(ids)
        return torch.cat(new, dim=1)


def _prompts(source: ModelSource, with_mask: bool) -> dict[str, torch.Tensor]:
    """Return prompts to trace with; padded on the left if the graph is to take a mask."""
    sample = source.sample()
    ids = widened({"input_ids": (sample.generate or sample.forward)["input_ids"]}, fixed_batch=False)["input_ids"]
    mask = torch.ones_like(ids)
    if with_mask:
        mask[0, 0] = 0
    return {"input_ids": ids, "attention_mask": mask}
