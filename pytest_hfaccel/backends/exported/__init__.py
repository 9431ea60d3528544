"""What runtimes share that run a model as an exported graph (OpenVINO, ONNX Runtime, ExecuTorch).

| module | what it does |
|---|---|
| `capture.py` | traces and converts, keeping open the axes that can be kept open |
| `failing_part.py` | finds the smallest part of a model that cannot be converted, or then compiled |
| `inputs.py` | what two calls must have in common to share a graph, and the inputs that are computed before tracing |
| `conversions.py` | converted models on disk |
| `constants.py` | finds a weight among the constants of a converted model |
| `onnx_programs.py` | ONNX graphs: the `ExportedRuntime` of all that run them, but for compiling |
| `graphs.py` | finds, converts and compiles the graph that a call needs |
| `model.py` | the `LoadedModel`: forward, generation with and without cache, the canary's wrong weight |
| `architecture.py` | the transformers class without weights, for `generate` and pipelines |

A runtime adds a folder with an `ExportedRuntime`, a `CompiledGraph`, and a `Backend` (from `OneRuntime`) whose `load`
checks the device and returns a `GraphModel`. `backends/openvino/` is the example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.core.spec import Device

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


class ConstantMerged(Exception):
    """A weight is in no constant of a converted model by itself: the converter merged it with something."""


class Memory(Protocol):
    """The memory of a device; the members are those of `LoadedModel` that are about memory."""

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""

    def reset_peak(self) -> None:
        """Start a new peak."""

    def note(self) -> None:
        """Look at the memory right after a run, where the runtime keeps no peak."""

    def occupied(self, nbytes: int) -> AbstractContextManager[None]:
        """Hold that many more bytes for a `with` block."""


class CompiledGraph(Protocol):
    """A graph compiled for a device. A run that fails raises `RuntimeError`; the graph is not used again then.

    Attributes:
        nbytes: Bytes of its constants.
        follows_batch: False where it takes any batch but returns that of the trace, so that running it is an error.
    """

    nbytes: int
    follows_batch: bool

    def runner(self, metadata: Any) -> Callable[..., Any]:
        """Return a function from inputs by name (torch tensors on the CPU) to the class's `ModelOutput`.

        Args:
            metadata: transformers' `ExportMetadata` of the conversion, which knows the structure of the output.
        """

    def decoder(self) -> Callable[[Tensors], torch.Tensor]:
        """Return one run of a graph that keeps the cache as its state; the state is empty.

        Each call takes the new tokens (`input_ids`), the mask over all tokens so far (`attention_mask`),
        `position_ids` and `beam_idx`, ignores what the graph has no input for, and returns the logits.
        """

    def effective_dtype(self, requested: str) -> str:
        """Return the dtype it computes at, as the runtime says; for `int8`, that of the weights of its products."""


class ExportedRuntime(Protocol):
    """A runtime that takes models as graphs. A *program* is its own object for one, before it is compiled.

    Attributes:
        name: Its folder in the cache of conversions; runtimes that convert alike share one.
        title: Its name in messages.
        packages: The distributions whose versions decide what a conversion gives, besides transformers and torch.
    """

    name: str
    title: str
    packages: tuple[str, ...]

    def convert(self, model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any], *, stateful: bool) -> Any:
        """Trace and convert a model with transformers' exporter; `capture` chooses the options and prepares the model.

        Args:
            model: The transformers model on the CPU in fp32.
            inputs: Example inputs.
            options: Fields of `DynamoConfig`: `dynamic` or `dynamic_shapes`.
            stateful: Keep the cache among the inputs and outputs as state of the graph.

        Returns:
            transformers' `ExportedModel` with one component.
        """

    def read(self, path: Path) -> Any:
        """Read a program that `ExportedModel.save_pretrained` or `write` wrote; `RuntimeError` if it is damaged."""

    def write(self, program: Any, path: Path) -> None:
        """Write a program in the format that transformers' exporter writes."""

    def takes_static_shapes_only(self, device: Device) -> bool:
        """Whether the device's compiler takes no graph with an open axis."""

    def compile(self, program: Any, device: Device, dtype: str, architecture: str) -> CompiledGraph:
        """Compile a program for a device, at the asked precision or not at all.

        Raises:
            BackendUnavailable: The device would compute at another precision.
            LoadError: The device cannot compile it.
            OutOfMemory: Memory ran out.
        """

    def compress(self, program: Any, architecture: str) -> Any:
        """Round a program's weights to 8 bits; the program given is used up.

        Raises:
            LoadError: They cannot be rounded.
        """

    def compression_facts(self) -> dict[str, Any]:
        """Return what decides the rounded weights: the package, its version and its mode."""

    def holds_weight(self, program: Any, weights: Mapping[str, Any], name: str) -> bool:
        """Whether `edit_constant` can change a weight; the arguments are as there."""

    def edit_constant(self, program: Any, weights: Mapping[str, Any], change: WeightChange) -> Any:
        """Return a copy of a program with one weight changed.

        Args:
            program: The program; it is left as it is.
            weights: The transformers model's parameters and buffers by name (torch tensors on the CPU).
            change: Which weight to change.

        Raises:
            ConstantMerged: No constant, or no single parameter, has these values.
        """

    def memory(self, device: Device) -> Memory:
        """Return the memory of a device."""


class OneRuntime:
    """The part of a backend that says what converts and compiles, where that is the same object for all its devices.

    Attributes:
        runtime: That object.
    """

    runtime: ExportedRuntime

    def runtime_on(self, device: Device) -> AbstractContextManager[ExportedRuntime]:  # noqa: ARG002 - the same for all
        """Return it, for a `with` block."""
        return nullcontext(self.runtime)
