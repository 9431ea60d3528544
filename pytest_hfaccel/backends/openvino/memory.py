"""Memory of an OpenVINO device: the GPU plugin's own count, or the process's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_hfaccel.backends.memory import ProcessMemory, occupied_in_process
from pytest_hfaccel.backends.openvino.device import core, read_property


class DeviceMemory:
    """Bytes in use by OpenVINO on a device.

    Args:
        target: OpenVINO's name of the device, e.g. `GPU.0`.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._process = ProcessMemory()
        self._peak = 0

    def reset_peak(self) -> None:
        """Start a new peak."""
        self._process.reset_peak()
        self._peak = 0

    def note(self) -> None:
        """Look at the device's memory right after a run: the GPU plugin keeps no peak."""
        self._peak = max(self._peak, self._on_gpu() or 0)

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Hold that many more bytes: a tensor in the GPU's memory, or pages of this process."""
        if self._on_gpu() is None:
            with occupied_in_process(nbytes):
                yield
        else:
            import openvino as ov

            held = core().get_default_context(self._target).create_tensor(ov.Type.u8, ov.Shape([nbytes]), {})
            yield
            del held

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""
        current = self._on_gpu()
        if current is None:
            return self._process.read()
        return {
            "current_bytes": current,
            "peak_bytes": max(current, self._peak),
            "source": "allocator",
            "peak_source": "GPU_MEMORY_STATISTICS after each run",
        }

    def _on_gpu(self) -> int | None:
        """Sum the plugin's statistics (bytes by kind of allocation); `None` for devices without them."""
        if not self._target.startswith("GPU"):
            return None
        statistics = read_property(core(), "GPU_MEMORY_STATISTICS", self._target)
        return None if statistics is None else sum(int(value) for value in statistics.values())
