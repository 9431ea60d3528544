"""A transformers model on an exported runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from pytest_hfaccel.backends.base import Placement, WeightChange, flatten_outputs, is_padded
from pytest_hfaccel.backends.exported import ConstantMerged, ExportedRuntime
from pytest_hfaccel.backends.exported.architecture import architecture_without_weights
from pytest_hfaccel.backends.exported.capture import export_model
from pytest_hfaccel.backends.exported.conversions import Conversion
from pytest_hfaccel.backends.exported.graphs import Builder, CachedDecoder, Graphs
from pytest_hfaccel.backends.generation import generate_greedily
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.core.errors import HfAccelError, LoadError
from pytest_hfaccel.core.spec import Device

_DECODED_TASK = "text-generation"
"""The task whose models get a graph that keeps the cache: those whose only input is text."""


class GraphModel:
    """A loaded model; see `pytest_hfaccel.backends.base.LoadedModel`.

    Args:
        builder: Made the graphs, and makes more of them.
        graphs: Its compiled graphs; the one for the sample inputs is there.
        placement: Where it runs, without what changes while it runs.
        is_original: Whether its weights are the checkpoint's.
    """

    def __init__(self, builder: Builder, graphs: Graphs, placement: Placement, *, is_original: bool = True) -> None:
        self._builder = builder
        self._source = builder.source
        self._graphs = graphs
        self._placement = placement
        self._memory = builder.runtime.memory(builder.device)
        self._architecture: Any = None
        self._is_original = is_original
        self._decoders: dict[bool, CachedDecoder] = {}
        self._watch: Callable[[torch.Tensor], Any] | None = None

    @property
    def placement(self) -> Placement:
        """Where it is and at which precision it runs, as the runtime reports it."""
        self._placement.details["graphs"] = len(self._graphs.loaded)
        self._placement.details["one_graph_for_any_batch"] = self._graphs.takes_any_batch
        return self._placement

    @property
    def nbytes(self) -> int:
        """Bytes of the graphs' constants."""
        graphs = sum(graph.compiled.nbytes for graph in self._graphs.loaded)
        return graphs + sum(decoder.nbytes for decoder in self._decoders.values())

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of conversion (0 when it had been converted), reading (`load`) and compilation, over all graphs."""
        total = dict(self._graphs.timings)
        for decoder in self._decoders.values():
            for stage, seconds in decoder.timings.items():
                total[stage] += seconds
        return total

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model once and wait for the result."""
        with out_of_memory_raised(self._placement.requested_device, "run"):
            leaves = flatten_outputs(self._graphs.run(inputs))
        self._memory.note()
        return leaves

    def generate(self, inputs: Mapping[str, torch.Tensor], *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
        """Generate greedily: with a cache on a graph of its own, without one each step over all tokens so far.

        Raises:
            NotImplementedError: `use_cache`: the model takes more than text, or cannot be converted with a cache.
        """
        with out_of_memory_raised(self._placement.requested_device, "run"):
            if use_cache:
                return self._decoder(is_padded(inputs)).generate(inputs, max_new_tokens, self._watch)
            return generate_greedily(self.pipeline_model(), inputs, max_new_tokens=max_new_tokens, use_cache=False)

    def watch_logits(self, watch: Callable[[torch.Tensor], Any] | None) -> None:
        """Have the logits of each step of a generation with a cache handed to a function; `None` ends that."""
        self._watch = watch

    def pipeline_model(self) -> Any:
        """Return the architecture class without weights, running on these graphs."""
        if self._architecture is None:
            names = self._graphs.graph(self._source.sample().forward).names
            self._architecture = architecture_without_weights(self._source, self._graphs.run, names)
        return self._architecture

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return those that are constants of the graph; the converter merges the others with what follows them."""
        program = self._graphs.graph(self._source.sample().forward).conversion.program
        weights = _weights(self._source.torch_model("fp32"))
        holds = self._builder.runtime.holds_weight
        return frozenset(name for name in parameters if name in weights and holds(program, weights, name))

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[GraphModel]:
        """Give the same model with one weight made wrong: another compiled graph beside this one."""
        graphs = self._perturbed_graphs(change)
        try:
            yield GraphModel(self._builder, graphs, self._placement, is_original=False)
        finally:
            graphs.close()

    @property
    def runtime(self) -> ExportedRuntime:
        """The runtime that converts and compiles."""
        return self._builder.runtime

    @property
    def device(self) -> Device:
        """The device."""
        return self._builder.device

    def conversion(self, inputs: Mapping[str, torch.Tensor]) -> Conversion:
        """Return the converted model of the graph for these inputs."""
        return self._graphs.graph(inputs).conversion

    def program_and_feed(self, inputs: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return the program of the graph for these inputs, before it is compiled, and what it is fed, by input."""
        return self._graphs.graph(inputs).conversion.program, self._graphs.feed(inputs)

    def memory(self) -> dict[str, Any]:
        """Bytes in use now and at most since `reset_peak_memory`."""
        return self._memory.read()

    def memory_counters(self) -> dict[str, int]:
        """Bytes that single allocators have given out; see `LoadedModel.memory_counters`."""
        return dict(getattr(self._memory, "counters", dict)())  # a runtime of others may count none

    def reset_peak_memory(self) -> None:
        """Start a new peak."""
        self._memory.reset_peak()

    def occupied(self, nbytes: int) -> AbstractContextManager[None]:
        """Hold that many more bytes on the device."""
        return self._memory.occupied(nbytes)

    def close(self) -> None:
        """Free the compiled graphs."""
        self._architecture = None
        self._decoders.clear()
        self._graphs.close()

    def _decoder(self, with_mask: bool) -> CachedDecoder:
        if self._source.spec.task != _DECODED_TASK or not self._is_original:
            raise NotImplementedError(
                f"a graph with a key-value cache is made for the checkpoint's own weights and the task {_DECODED_TASK} "
                "only"
            )
        if with_mask not in self._decoders:
            try:
                self._decoders[with_mask] = CachedDecoder(self._builder.anew(), with_mask=with_mask)
            except LoadError as error:
                raise NotImplementedError(error.message) from error
        return self._decoders[with_mask]

    def _perturbed_graphs(self, change: WeightChange) -> Graphs:
        """Return graphs with one weight made wrong, and the one for the sample inputs compiled.

        The weight's constant is found by its values. Where the converter has merged the weight with something, the
        changed torch model is converted anew, for the shapes of the sample inputs only.
        """
        runtime = self._builder.runtime
        model = self._source.torch_model("fp32")
        weights = _weights(model)
        if change.parameter not in weights:
            raise ValueError(f"{type(model).__name__} has no parameter {change.parameter!r}")
        inputs = self._source.sample().forward
        graphs = self._graphs.edited(lambda program: runtime.edit_constant(program, weights, change))
        try:
            graphs.graph(inputs)
        except ConstantMerged:
            weights[change.parameter].data.view(-1)[change.index] += change.delta
            exported, _, _ = export_model(runtime, model, inputs, static=True)
            graphs = self._graphs.edited(lambda _: exported.program)
            graphs.graph(inputs)
        except HfAccelError:
            graphs.close()
            raise
        return graphs


def _weights(model: Any) -> dict[str, Any]:
    return {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
