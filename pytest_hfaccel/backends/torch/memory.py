"""Memory of a torch device: the allocator's own count, or the process's where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pytest_hfaccel.backends.process_memory import ProcessMemory, occupied_in_process


class DeviceMemory:
    """Bytes in use on a torch device.

    Args:
        device: torch's device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = ProcessMemory() if device.type == "cpu" else None
        self._mps_peak = 0

    def allocated(self) -> int:
        """Bytes the device's allocator has given out; 0 on the CPU, whose allocator does not count."""
        if self._device.type == "cpu":
            return 0
        if self._device.type == "mps":
            return int(torch.mps.current_allocated_memory())
        return int(torch.accelerator.memory_allocated(self._device))

    def reset_peak(self) -> None:
        """Start a new peak."""
        if self._process is not None:
            self._process.reset_peak()
        elif self._device.type == "mps":
            self._mps_peak = 0
        else:
            torch.accelerator.reset_peak_memory_stats(self._device)

    def note(self) -> None:
        """Let a device whose allocator keeps no peak take one now: called right after a forward pass."""
        if self._device.type == "mps":
            self._mps_peak = max(self._mps_peak, int(torch.mps.driver_allocated_memory()))

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Hold that many more bytes on the device."""
        if self._process is not None:
            with occupied_in_process(nbytes):
                yield
        else:
            held = torch.ones(nbytes, dtype=torch.uint8, device=self._device)
            yield
            del held

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""
        if self._process is not None:
            return self._process.read()
        current = self.allocated()
        if self._device.type == "mps":
            peak, source = max(current, self._mps_peak), "driver's memory after each run"
        else:
            peak, source = int(torch.accelerator.max_memory_allocated(self._device)), "allocator"
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
    """The tensors that hold a tensor's values: itself, or for a quantised one the rounded values and their scales."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]
