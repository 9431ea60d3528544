"""OpenVINO's runtime: which devices answer, with which properties models are compiled, and what memory they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import openvino as ov

from pytest_hfaccel.backends.memory import ProcessMemory, occupied_in_process
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device

VIRTUAL = frozenset({"AUTO", "HETERO", "MULTI", "BATCH"})
"""Devices of OpenVINO that hand the work on to others."""


@lru_cache(maxsize=1)
def core() -> ov.Core:
    """Return the runtime, one per process: making one loads plugin libraries."""
    return ov.Core()


def require_device(device: Device) -> None:
    """Make sure the runtime has a device.

    Raises:
        BackendUnavailable: It does not; the message names those it has.
    """
    available = core().available_devices
    # GPU means GPU.0; with two GPUs the runtime lists GPU.0 and GPU.1, and takes GPU as well.
    if device.target.partition(":")[0] in VIRTUAL or any(
        device.target == name or name == f"{device.target}.0" for name in available
    ):
        return
    raise BackendUnavailable(
        f"{device}: OpenVINO {ov.__version__} finds no such device. Available: {', '.join(available) or 'none'}; and "
        f"{', '.join(sorted(VIRTUAL))}, which choose among them.",
        stage="load",
        hint="A GPU or NPU needs its driver (on Linux: OpenCL and Level Zero) and access to /dev/dri or /dev/accel.",
    )


_GROUP_SIZE = "DYNAMIC_QUANTIZATION_GROUP_SIZE"


def compile_options(device: Device, hint: str, threads: int | None = None) -> dict[str, Any]:
    """Return the properties a model is compiled with.

    The precision is always given: left alone, a CPU with AMX runs fp32 models at bf16, a GPU at fp16. And activations
    keep it: left alone, the CPU plugin rounds those that meet 8-bit weights to 8 bits, too, in groups of 32.

    Args:
        device: The device.
        hint: OpenVINO's name of the inference precision: `f32`, `bf16`, `f16`.
        threads: Threads of the CPU plugin; its own choice when not given.
    """
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if _GROUP_SIZE in (read_property(core(), "SUPPORTED_PROPERTIES", device.target) or ()):
        options[_GROUP_SIZE] = 0
    if threads is not None and device.target == "CPU":
        options["INFERENCE_NUM_THREADS"] = threads
    return options


def read_property(owner: Any, name: str, *arguments: Any) -> Any:
    """Return a property of a compiled model or of the runtime's device; `None` where it has none by that name."""
    try:
        return owner.get_property(*arguments, name)
    except RuntimeError:
        return None


def device_facts(device: Device) -> dict[str, Any]:
    """Return what the runtime says about a device: full name, capabilities, driver, version."""
    facts: dict[str, Any] = {"openvino": ov.__version__}
    if device.target.partition(":")[0] in VIRTUAL:
        return facts
    for key, name in (("name", "FULL_DEVICE_NAME"), ("driver", "GPU_DRIVER_VERSION"), ("driver", "NPU_DRIVER_VERSION")):
        value = read_property(core(), name, device.target)
        if value is not None:
            facts[key] = str(value)
    facts["capabilities"] = capabilities(device)
    return facts


def capabilities(device: Device) -> list[str]:
    """Return the precisions and features a device says it has (`OPTIMIZATION_CAPABILITIES`), sorted."""
    return sorted(read_property(core(), "OPTIMIZATION_CAPABILITIES", device.target) or ())


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

            tensor = core().get_default_context(self._target).create_tensor(ov.Type.u8, ov.Shape([nbytes]), {})
            yield
            del tensor

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

    def counters(self) -> dict[str, int]:
        """Return bytes by kind of allocation, of the plugin of GPUs and of this process."""
        return {**(self._statistics() or {}), **self._process.counters()}

    def _on_gpu(self) -> int | None:
        """Sum the plugin's statistics; `None` for devices without them."""
        statistics = self._statistics()
        return None if statistics is None else sum(statistics.values())

    def _statistics(self) -> dict[str, int] | None:
        """Return the plugin's bytes by kind of allocation; `None` for devices without them."""
        if not self._target.startswith("GPU"):
            return None
        statistics = read_property(core(), "GPU_MEMORY_STATISTICS", self._target)
        return None if statistics is None else {str(kind): int(value) for kind, value in statistics.items()}
