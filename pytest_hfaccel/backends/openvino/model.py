"""A transformers model on an OpenVINO device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import ModelSource, Placement, WeightChange, is_padded
from pytest_hfaccel.backends.generation import generate_greedily
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.openvino.decoding import TASK, CachedDecoder
from pytest_hfaccel.backends.openvino.graphs import Graphs
from pytest_hfaccel.backends.openvino.memory import DeviceMemory
from pytest_hfaccel.backends.outputs import flatten_outputs
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import Device

if TYPE_CHECKING:
    import torch


class OpenVINOModel:
    """A loaded model; see `pytest_hfaccel.backends.base.LoadedModel`.

    Args:
        source: The checkpoint.
        graphs: Its compiled graphs; the one for the sample inputs is there.
        placement: Where it runs, without what changes while it runs.
        is_original: Whether its weights are the checkpoint's.
    """

    def __init__(self, source: ModelSource, graphs: Graphs, placement: Placement, *, is_original: bool = True) -> None:
        self._source = source
        self._graphs = graphs
        self._placement = placement
        self._memory = DeviceMemory(placement.requested_device.partition(":")[2])
        self._architecture: Any = None
        self._is_original = is_original
        self._decoders: dict[bool, CachedDecoder] = {}

    @property
    def placement(self) -> Placement:
        """Where it is and at which precision it runs, as the runtime reports it."""
        self._placement.details["graphs"] = len(self._graphs.loaded)
        self._placement.details["one_graph_for_any_batch"] = self._graphs.takes_any_batch
        return self._placement

    @property
    def nbytes(self) -> int:
        """Bytes of the graphs' constants."""
        graphs = sum(graph.nbytes for graph in self._graphs.loaded)
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
                return self._decoder(is_padded(inputs)).generate(inputs, max_new_tokens)
            return generate_greedily(self.pipeline_model(), inputs, max_new_tokens=max_new_tokens, use_cache=False)

    def pipeline_model(self) -> Any:
        """Return the architecture class without weights, running on these graphs."""
        if self._architecture is None:
            from pytest_hfaccel.backends.openvino.architecture import architecture_on_openvino

            names = self._graphs.graph(self._source.sample().forward).names
            self._architecture = architecture_on_openvino(self._source, self._graphs.run, names)
        return self._architecture

    def held(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return those that are constants of the graph; the converter merges the others with what follows them."""
        from pytest_hfaccel.backends.openvino.perturbation import held_weights

        graph = self._graphs.graph(self._source.sample().forward)
        return held_weights(self._source, graph.converted.program, parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[OpenVINOModel]:
        """Give the same model with one weight made wrong: another compiled graph beside this one."""
        from pytest_hfaccel.backends.openvino.perturbation import perturbed_graphs

        graphs = perturbed_graphs(self._source, self._graphs, change)
        try:
            yield OpenVINOModel(self._source, graphs, self._placement, is_original=False)
        finally:
            graphs.close()

    def memory(self) -> dict[str, Any]:
        """Bytes in use now and at most since `reset_peak_memory`."""
        return self._memory.read()

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
        if self._source.spec.task != TASK or not self._is_original:
            raise NotImplementedError(
                f"a graph with a key-value cache is made for the checkpoint's own weights and the task {TASK} only"
            )
        if with_mask not in self._decoders:
            device = Device.parse(self._placement.requested_device)
            dtype = self._placement.requested_dtype
            try:
                self._decoders[with_mask] = CachedDecoder(self._source, device, dtype, with_mask=with_mask)
            except LoadError as error:
                raise NotImplementedError(error.message) from error
        return self._decoders[with_mask]
