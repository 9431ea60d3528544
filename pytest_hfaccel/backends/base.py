"""The protocol between the core and a runtime: what a backend takes, and what a loaded model offers.

A backend is a folder beside this file. Its `__init__` is cheap; whatever imports a runtime is in `backend.py` and
is resolved through an import string when the first cell needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


INT8 = "int8"
"""The dtype at which only the weights have 8 bits; the arithmetic is that of fp32."""


@dataclass(frozen=True)
class Placement:
    """Where a loaded model really is and which precision it really runs at.

    Attributes:
        requested_device: Device id of the cell.
        actual_devices: What the runtime reported, e.g. `("cuda:0",)` or OpenVINO's `EXECUTION_DEVICES`.
        requested_dtype: The cell's dtype.
        effective_dtype: What the runtime reported; `mixed` when parts run at different precisions.
        implementation: `real`, or `emulated` for a real runtime on a software adapter.
        details: Facts of the runtime worth keeping: device name, driver, properties read back.
    """

    requested_device: str
    actual_devices: tuple[str, ...]
    requested_dtype: str
    effective_dtype: str
    implementation: str = "real"
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {**asdict(self), "actual_devices": list(self.actual_devices)}


@dataclass(frozen=True)
class WeightChange:
    """One scalar weight made wrong, for the canary.

    Attributes:
        parameter: Dotted name of the parameter in the transformers model.
        index: Position in the flattened parameter.
        delta: What is added to the weight.
    """

    parameter: str
    index: int
    delta: float


@dataclass
class SampleInputs:
    """The inputs a model is tested with, on the CPU, floating-point tensors in fp32.

    Attributes:
        forward: Keyword arguments of `forward`: a batch of two different samples.
        generate: Keyword arguments of `generate`; `None` when the model does not generate.
        padded: `forward` with extra, masked padding on the right of the text; `None` when that does not apply.
        pipeline: Positional and keyword arguments for a call of the task's pipeline; `None` without a pipeline.
        pipeline_kwargs: Keyword arguments of that call.
        batch: Number of samples in `forward`.
    """

    forward: dict[str, torch.Tensor]
    generate: dict[str, torch.Tensor] | None = None
    padded: dict[str, torch.Tensor] | None = None
    pipeline: tuple[Any, ...] | None = None
    pipeline_kwargs: dict[str, Any] = field(default_factory=dict)
    batch: int = 2


def is_padded(inputs: Tensors) -> bool:
    """Whether a prompt among the inputs of `generate` has masked tokens."""
    return "attention_mask" in inputs and not bool((inputs["attention_mask"] == 1).all())


class ModelSource(Protocol):
    """Where a backend gets a model from. `pytest_hfaccel.checkpoints.Checkpoint` is the implementation."""

    @property
    def spec(self) -> ModelSpec:
        """The model."""

    @property
    def directory(self) -> Path:
        """The checkpoint on disk, loadable with `from_pretrained`."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything the checkpoint's content depends on; a key for what is derived from it."""

    @property
    def cache_dir(self) -> Path:
        """Where a backend may keep what it derives from the checkpoint (converted models)."""

    def model_class(self) -> Any:
        """Return the model's transformers class.

        Raises:
            LoadError: There is no such class.
        """

    def torch_model(self, dtype: str, device: str = "cpu") -> Any:
        """Load the transformers model in eval mode.

        Args:
            dtype: `fp64`, `fp32`, `bf16` or `fp16`.
            device: torch device the parameters are loaded onto.

        Raises:
            CheckpointError: The checkpoint cannot be read, or its config does not fit the class or the weights.
            LoadError: transformers could not build the model from it, or built another one than the files describe.
        """

    def torch_model_in(self, directory: Path, dtype: str) -> Any:
        """Load the transformers model onto the CPU in eval mode, from a directory that it was saved to.

        Args:
            directory: What `save_pretrained` wrote.
            dtype: As in `torch_model`, whose errors it raises.
        """

    def loading_info(self) -> dict[str, Any]:
        """What `from_pretrained` says about the checkpoint's keys.

        Lists of names under `missing_keys` (they were drawn), `unexpected_keys` (nothing of the architecture takes
        them) and `other_heads` (another class of the architecture does); the first two are empty when they fit.
        """

    def weight_problems(self, model: Any) -> list[str]:
        """Return what a torch model of this checkpoint has differently from the checkpoint's files, a line each.

        Args:
            model: A transformers model on any device, at any floating-point dtype.
        """

    def sample(self) -> SampleInputs:
        """The inputs of this model; the same object on every call."""

    def processors(self) -> dict[str, Any]:
        """The checkpoint's `tokenizer`, `image_processor`, `feature_extractor`, `processor`, as far as it has them.

        The keys are the parameter names of `transformers.pipeline`.
        """


class SplittableSource(ModelSource, Protocol):
    """A source that also gives models that are split over devices, as checkpoints do."""

    def split_model(self, dtype: str, split: Mapping[str, Any]) -> Any:
        """Load the transformers model, or this process's part of it, in eval mode.

        Args:
            dtype: As in `torch_model`, whose errors it raises.
            split: Keyword arguments of `from_pretrained` that say how (`device_map`, `distributed_config`).
        """


class LoadedModel(Protocol):
    """A model on a device, ready to run. Tensors go in and come out on the CPU.

    One that runs in another process may also have `run_seconds() -> float | None`: the seconds of the last `forward`
    as they were measured there. They are what the check `performance` reports.
    """

    @property
    def placement(self) -> Placement:
        """Where it is and at which precision it runs, as the runtime reports it."""

    @property
    def nbytes(self) -> int:
        """Bytes it occupies on its device, measured by the device's allocator or summed over the weights."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per stage of loading: `load`, and `convert` and `compile` where the runtime has them."""

    def forward(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Run the model once and wait for the result.

        Returns:
            The tensors of the model output by dotted leaf name (`logits`, `hidden_states.0`), on the CPU, in the
            dtype the device returned. Caches (`past_key_values`) are left out.
        """

    def generate(self, inputs: Tensors, *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
        """Generate greedily, without stopping early.

        Returns:
            The new token ids, int64 of shape (batch, max_new_tokens), on the CPU.

        Raises:
            NotImplementedError: This backend cannot generate this way (`use_cache` says which way).
        """

    def pipeline_model(self) -> Any:
        """Return an object that `transformers.pipeline(model=...)` takes and that runs on this device."""

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return those of some parameters that `perturbed` can change without building the model anew.

        A runtime that merges weights has to build it anew to make one of the merged ones wrong. The method was named
        `held`; a third-party model that has only that is still asked, with a warning.

        Args:
            parameters: Names of `named_parameters`.
        """

    def perturbed(self, change: WeightChange) -> AbstractContextManager[LoadedModel]:
        """Give the same model with one weight made wrong on the device; undone on exit."""

    def memory(self) -> dict[str, Any]:
        """Bytes on the device now (`current_bytes`) and at most since `reset_peak_memory` (`peak_bytes`).

        `source` is `allocator` where the device's allocator keeps count, else `process` (resident set);
        `peak_source` says in words what the peak was read from.

        A model may also have `memory_counters() -> dict[str, int]`: bytes that single allocators below that have given
        out, by name. Of a leak `hfaccel explain` says which of them grows.
        """

    def reset_peak_memory(self) -> None:
        """Start a new peak."""

    def occupied(self, nbytes: int) -> AbstractContextManager[None]:
        """Hold that many more bytes for a `with` block, in the memory that `memory` counts.

        The check `memory` sees by it whether the count is alive, and `checks.planted.leaking` loses memory with it.
        `backends.memory.occupied_in_process` is the implementation where the resident set is counted.
        """

    def close(self) -> None:
        """Free the device's memory. The object is not used afterwards."""


@runtime_checkable
class Backend(Protocol):
    """The code that brings a torch model to a device and runs it.

    Only `name` and `load` are required. A third-party backend may also have `traits`
    (`pytest_hfaccel.core.devices.Traits`; the default ones otherwise), what `DeviceProbe` asks for, and
    `expected_bytes(cell) -> int`: the bytes that a model is about to take on the device, where those of its weights do
    not tell. Its module is imported in every process of a run, so it imports its runtime in `load`.
    """

    name: str

    def load(self, cell: Cell, source: ModelSource) -> LoadedModel:
        """Bring a model to the cell's device at the cell's dtype.

        The first load on a device confirms that the device is really there.

        Args:
            cell: What to load.
            source: The checkpoint; `None` for a backend whose traits say `needs_checkpoint=False`.

        Raises:
            BackendUnavailable: The device does not answer, or cannot run at this precision.
            LoadError: With the stage (`load`, `convert`, `compile`) that failed.
            OutOfMemory: The device's memory did not suffice.
        """


@runtime_checkable
class DeviceProbe(Protocol):
    """A backend that knows which devices the machine has.

    With it `hfaccel hardware` lists them, `--all-hardware` tests on them, and a plain run may choose one. The built-in
    backends have no `probe`: `pytest_hfaccel.hardware` searches for their devices without importing them.
    """

    def probe(self) -> list[Presence]:
        """Return each device, present or absent with the reason, by cheap signs: in milliseconds, no runtime loaded."""

    def confirm(self, device: Device, dtype: str = "fp32") -> dict[str, Any]:
        """Load the runtime and compute something on a device.

        Returns:
            What the device reports about itself; `name` and `memory_bytes` become the fields of its `Presence`.

        Raises:
            BackendUnavailable: It does not answer, or cannot compute at the dtype.
        """


_CACHES = frozenset({"past_key_values", "cache_params", "mems", "past_buckets_states", "state", "states"})
"""Output fields that hold what a model remembers between calls; they are not results."""


def flatten_outputs(output: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a model output by dotted leaf name, e.g. `logits`, `hidden_states.0`.

    Args:
        output: A `ModelOutput`, mapping, sequence or tensor, nested as deep as it likes. A bare tensor is named
            `output`. Caches, numbers and `None` are left out.
    """
    return dict(_leaves(output, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield name or "output", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _CACHES:
                yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}" if name else str(index))
