"""What a model adds to the memory of its device, at the peak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pytest_hfaccel.backends.memory import ProcessMemory

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel


class AddedMemory(Protocol):
    """A way to find out what a model added."""

    def begin(self, loaded: LoadedModel) -> None:
        """Called before the first run."""

    def added(self, loaded: LoadedModel) -> tuple[int | None, str]:
        """Called after some runs: the bytes at the peak, and what they were read from, in words."""


class OwnProcess:
    """For a process that does nothing but load and run this model: to be made just before loading.

    The peak includes that of loading. On a device with an allocator of its own the allocator's count is used; the
    host's memory is then not the device's.
    """

    def __init__(self) -> None:
        self._process = ProcessMemory()
        self._process.reset_peak()
        self._before = int(self._process.read()["current_bytes"])

    def begin(self, loaded: LoadedModel) -> None:
        """Nothing: the peak runs since before loading."""

    def added(self, loaded: LoadedModel) -> tuple[int | None, str]:
        """Return the peak minus what the process held before loading."""
        device = loaded.memory()
        if device["source"] == "allocator":
            return int(device["peak_bytes"]), f"{device['peak_source']}, of a process of its own"
        process = self._process.read()
        bytes_added = int(process["peak_bytes"]) - self._before
        return bytes_added, f"{process['peak_source']}, minus the resident set before loading; a process of its own"


class SharedProcess:
    """For a process that holds other models, too: the weights, and the rise while this model runs."""

    def __init__(self) -> None:
        self._before = 0

    def begin(self, loaded: LoadedModel) -> None:
        """Start a new peak."""
        loaded.reset_peak_memory()
        self._before = int(loaded.memory()["current_bytes"])

    def added(self, loaded: LoadedModel) -> tuple[int | None, str]:
        """Return the bytes of the weights plus the rise of the peak while running."""
        memory = loaded.memory()
        rise = max(0, int(memory["peak_bytes"]) - self._before)
        return loaded.nbytes + rise, f"bytes of the weights, and the rise while running ({memory['peak_source']})"
