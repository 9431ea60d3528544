"""A transformers model on a torch device, and the memory it takes there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from pytest_hfaccel.backends.base import ModelSource, Placement, WeightChange, flatten_outputs
from pytest_hfaccel.backends.generation import generate_greedily
from pytest_hfaccel.backends.memory import ProcessMemory, occupied_in_process, out_of_memory_raised
from pytest_hfaccel.backends.torch.devices import device_function, full_fp32


class DeviceMemory:
    """Bytes in use on a torch device: what its module counts, or the memory of this process where it counts none.

    Args:
        device: torch's device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._allocated = None if device.type == "cpu" else device_function(device, "memory_allocated")
        self._process = ProcessMemory() if self._allocated is None else None
        self._peak = device_function(device, "max_memory_allocated")
        self._reset_peak = device_function(device, "reset_peak_memory_stats")
        self._after_run = device_function(device, "memory_after_run")
        self._largest_after_run = 0

    def allocated(self) -> int:
        """Bytes the device's allocator has given out; 0 where it does not count."""
        return 0 if self._allocated is None else int(self._allocated())

    def reset_peak(self) -> None:
        """Start a new peak."""
        self._largest_after_run = 0
        if self._process is not None:
            self._process.reset_peak()
        elif self._reset_peak is not None:
            self._reset_peak()

    def note(self) -> None:
        """Let a device whose allocator keeps no peak take one now: called right after a forward pass."""
        if self._peak is None:
            measure = self._after_run or self.allocated
            self._largest_after_run = max(self._largest_after_run, int(measure()))

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Hold that many more bytes on the device."""
        if self._process is not None:
            with occupied_in_process(nbytes):
                yield
        else:
            tensor = torch.ones(nbytes, dtype=torch.uint8, device=self._device)
            yield
            del tensor

    def counters(self) -> dict[str, int]:
        """Return what else is counted, by name; see `LoadedModel.memory_counters`."""
        return (self._process or ProcessMemory()).counters()

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""
        if self._process is not None:
            return self._process.read()
        current = self.allocated()
        if self._peak is not None:
            peak, source = int(self._peak()), "allocator"
        else:
            whose = "driver's memory" if self._after_run is not None else "allocator's memory"
            peak, source = max(current, self._largest_after_run), f"{whose} after each run"
        return {"current_bytes": current, "peak_bytes": peak, "source": "allocator", "peak_source": source}


def weight_bytes(model: Any) -> int:
    """Sum the bytes of a model's parameters and buffers; memory shared by several counts once."""
    storages = {}
    for whole in (*model.parameters(), *model.buffers()):
        for tensor in _parts(whole):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr(), str(tensor.device)] = storage.nbytes()
    return sum(storages.values())


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that hold a tensor's values: itself, the part of a split one, or rounded values and their scales."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    parts = (getattr(tensor, name) for name in names)
    return [part for part in parts if isinstance(part, torch.Tensor)]


# Below this size a model of the CPU is left to the next collection of garbage, which takes longer than loading it.
_COLLECT_BYTES = 64 * 2**20


class TorchModel:
    """A loaded model; see `pytest_hfaccel.backends.base.LoadedModel`.

    Args:
        model: The transformers model, on its device, in eval mode.
        dtype: The dtype floating-point inputs are cast to.
        placement: Where it is.
        nbytes: Bytes it holds.
        timings: Seconds per stage of loading.
    """

    def __init__(
        self, model: Any, dtype: torch.dtype, placement: Placement, nbytes: int, timings: dict[str, float]
    ) -> None:
        self._model = model
        self.dtype = dtype
        self._device = next(model.parameters()).device
        self._memory = DeviceMemory(self._device)
        undo = ExitStack()
        undo.enter_context(full_fp32)
        self._end_full_fp32 = weakref.finalize(self, undo.close)
        self.placement = placement
        self.nbytes = nbytes
        self.timings = timings

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model once and wait for the result."""
        if self._model is None:
            raise RuntimeError("the model is closed")
        with out_of_memory_raised(self.placement.requested_device, "run"), torch.inference_mode():
            output = self._model(**self._moved(inputs))
            leaves = flatten_outputs(output)
            self._synchronize()
            self._memory.note()
            return {name: leaf.cpu() for name, leaf in leaves.items()}

    def generate(self, inputs: Mapping[str, torch.Tensor], *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
        """Generate greedily, without stopping early."""
        with out_of_memory_raised(self.placement.requested_device, "run"), torch.inference_mode():
            return generate_greedily(
                self._model, self._moved(inputs), max_new_tokens=max_new_tokens, use_cache=use_cache
            )

    def pipeline_model(self) -> Any:
        """Return the transformers model itself."""
        return self._model

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return all of them: torch holds parameters as they are."""
        return frozenset(parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong; the weight is restored bit by bit."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        if change.parameter not in parameters:
            raise ValueError(f"{type(self._model).__name__} has no parameter {change.parameter!r}")
        weight = parameters[change.parameter].data
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(change.index), weight.shape))
        original = weight[place].clone()
        try:
            weight[place] += change.delta
            yield self
        finally:
            weight[place] = original

    def memory(self) -> dict[str, Any]:
        """Bytes on the device now and at most since `reset_peak_memory`."""
        return self._memory.read()

    def memory_counters(self) -> dict[str, int]:
        """Bytes that single allocators have given out; see `LoadedModel.memory_counters`."""
        return self._memory.counters()

    def reset_peak_memory(self) -> None:
        """Start a new peak."""
        self._memory.reset_peak()

    def occupied(self, nbytes: int) -> AbstractContextManager[None]:
        """Hold that many more bytes on the device."""
        return self._memory.occupied(nbytes)

    def release(self) -> Any:
        """Give the transformers model to another object, which goes on with it; this one is closed."""
        model, self._model = self._model, None
        self._end_full_fp32()
        return model

    def close(self) -> None:
        """Free the device's memory."""
        self._model = None
        self._end_full_fp32()
        on_accelerator = self._device.type != "cpu"
        if on_accelerator or self.nbytes >= _COLLECT_BYTES:
            gc.collect()
        empty_cache = device_function(self._device, "empty_cache") if on_accelerator else None
        if empty_cache is not None:
            empty_cache()

    def _moved(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return moved(inputs, self._device, self.dtype)

    def _synchronize(self) -> None:
        synchronize = device_function(self._device, "synchronize") if self._device.type != "cpu" else None
        if synchronize is not None:
            synchronize()


def moved(inputs: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return inputs on a device, floating-point ones in a dtype; what is no tensor (`use_cache`) stays as it is."""
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
    }


def model_on_meta(source: ModelSource) -> Any:
    """Return the transformers model of a checkpoint, without weights."""
    model_class = source.model_class()
    with torch.device("meta"):
        return model_class(model_class.config_class.from_pretrained(source.directory, local_files_only=True))
