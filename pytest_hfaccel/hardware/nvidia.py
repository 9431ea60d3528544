"""NVIDIA GPUs: those the driver has, that the environment shows, and that this torch can use.

The driver is asked through NVML by ctypes rather than through CUDA: `cuInit` takes hundreds of milliseconds on a
machine with GPUs, and a process that has called it cannot use CUDA in its forked children. It is part of every driver,
so nothing has to be installed for a GPU to be found.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.torch_build import TorchBuild
from pytest_hfaccel.hardware.visibility import Visibility, visibility_variables, visible_devices

_FIRST = Device("cuda", "0")
_NAMES = {"linux": "libnvidia-ml.so.1", "win32": "nvml.dll"}
_TEXT_BYTES = 96
"""NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE of nvml.h."""
_SM_CLOCK = 1
"""NVML_CLOCK_SM of nvml.h."""
_THROTTLING = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""nvmlClocksThrottleReason* of nvml.h that mean the GPU should run faster and may not: software power cap, hardware
slowdown, software thermal slowdown, hardware thermal slowdown, hardware power brake. Being idle (0x01), clocks that
an administrator set (0x02) and sync boost (0x10) are none."""


def probe_cuda(build: TorchBuild, nvml: Any = None, environ: Mapping[str, str] | None = None) -> list[Presence]:
    """Look for NVIDIA GPUs.

    Args:
        build: The installed torch.
        nvml: NVIDIA's management library; the installed one when not given.
        environ: Environment to read instead of `os.environ`.
    """
    nvml = nvml if nvml is not None else load_nvml()
    if nvml is None:
        return [Presence(_FIRST, False, "no NVIDIA driver (its library NVML is not installed)")]
    try:
        driver, gpus = list_gpus(nvml)
    except (NvmlError, AttributeError) as error:
        return [Presence(_FIRST, False, f"an NVIDIA driver is installed, but does not answer: {error}")]
    if not gpus:
        return [Presence(_FIRST, False, f"the NVIDIA driver {driver} has no GPU")]
    visible = _visible(gpus, environ)
    problem = build.why_not("cuda") or ("" if visible.order else visible.reason)
    if problem:
        seen = f"an NVIDIA driver is present ({len(gpus)} GPU{'s' if len(gpus) > 1 else ''})"
        return [Presence(_FIRST, False, f"{seen}, but {problem}", gpus[0].name, gpus[0].memory_bytes)]
    return [_presence(number, gpus[index], driver, visible.reason) for number, index in enumerate(visible.order)]


def _presence(number: int, gpu: NvidiaGpu, driver: str, hidden: str) -> Presence:
    details = {"driver": driver, "compute_capability": gpu.capability, "uuid": gpu.uuid}
    reason = f"NVIDIA driver {driver}" + (f"; {hidden}" if hidden else "")
    return Presence(Device("cuda", str(number)), True, reason, gpu.name, gpu.memory_bytes, details)


class NvmlError(Exception):
    """The library answered with an error."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class NvidiaGpu:
    """A GPU as the driver knows it.

    Attributes:
        name: Marketing name.
        uuid: Unique id, `GPU-...`.
        memory_bytes: Total memory.
        capability: Compute capability, e.g. `9.0`.
        free_bytes: What is free of its memory now; `None` where the driver was not asked.
    """

    name: str
    uuid: str
    memory_bytes: int
    capability: str
    free_bytes: int | None = None


def load_nvml(platform: str = sys.platform) -> Any:
    """Load the library; `None` where there is no NVIDIA driver."""
    if platform not in _NAMES:
        return None
    try:
        return ctypes.CDLL(_NAMES[platform])
    except OSError:
        return None


def list_gpus(nvml: Any) -> tuple[str, list[NvidiaGpu]]:
    """Return the driver's version and its GPUs, in PCI order.

    Args:
        nvml: The library, as `load_nvml` returns it.

    Raises:
        NvmlError: A call failed: the driver is not loaded, or does not fit the library.
    """
    with _session(nvml):
        count = ctypes.c_uint()
        _call(nvml, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        version = ctypes.create_string_buffer(_TEXT_BYTES)
        _call(nvml, "nvmlSystemGetDriverVersion", version, ctypes.c_uint(_TEXT_BYTES))
        return version.value.decode(), [_gpu(nvml, index) for index in range(count.value)]


def why_driver_is_too_old(build: TorchBuild, nvml: Any = None) -> str:
    """Return why the driver cannot run what this torch is built for; empty when it can, or when NVML does not say.

    Args:
        build: The installed torch.
        nvml: The library; the installed one when not given.
    """
    nvml = nvml if nvml is not None else load_nvml()
    if nvml is None or not build.cuda:
        return ""
    number = ctypes.c_int()
    try:
        with _session(nvml):
            _call(nvml, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(number))
    except (NvmlError, AttributeError):
        return ""
    major, minor = number.value // 1000, number.value % 1000 // 10
    # Within a major version, a newer CUDA runs on an older driver.
    if int(build.cuda.partition(".")[0]) <= major:
        return ""
    return f"torch {build.version} is built for CUDA {build.cuda}; the driver goes up to CUDA {major}.{minor}"


def read_free_memory(nvml: Any = None, environ: Mapping[str, str] | None = None) -> list[int | None]:
    """Return what is free of the memory of each GPU that torch sees, in torch's order; empty without a driver.

    Args:
        nvml: The library; the installed one when not given.
        environ: Environment to read instead of `os.environ`.
    """
    nvml = nvml if nvml is not None else load_nvml()
    try:
        gpus = [] if nvml is None else list_gpus(nvml)[1]
    except (NvmlError, AttributeError):
        return []
    return [gpus[index].free_bytes for index in _visible(gpus, environ).order]


def read_gpu_clock(nvml: Any, index: int, environ: Mapping[str, str] | None = None) -> tuple[float, bool] | None:
    """Return the clock in MHz and whether the GPU is throttled; `None` where NVML does not say.

    Args:
        nvml: The library, as `load_nvml` returns it.
        index: torch's number of the GPU: CUDA_VISIBLE_DEVICES may hide and reorder what NVML lists.
        environ: Environment to read instead of `os.environ`.
    """
    clock, reasons = ctypes.c_uint(), ctypes.c_ulonglong()
    try:
        number = _visible(list_gpus(nvml)[1], environ).order[index]
        with _session(nvml):
            handle = _handle(nvml, number)
            _call(nvml, "nvmlDeviceGetClockInfo", handle, ctypes.c_uint(_SM_CLOCK), ctypes.byref(clock))
            _call(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle, ctypes.byref(reasons))
    except (NvmlError, AttributeError, IndexError):
        return None
    return float(clock.value), bool(reasons.value & _THROTTLING)


def _visible(gpus: list[NvidiaGpu], environ: Mapping[str, str] | None) -> Visibility:
    environ = os.environ if environ is None else environ
    return visible_devices(len(gpus), visibility_variables("cuda"), environ, [gpu.uuid for gpu in gpus])


def _gpu(nvml: Any, index: int) -> NvidiaGpu:
    handle = _handle(nvml, index)
    name, uuid = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.create_string_buffer(_TEXT_BYTES)
    _call(nvml, "nvmlDeviceGetName", handle, name, ctypes.c_uint(_TEXT_BYTES))
    _call(nvml, "nvmlDeviceGetUUID", handle, uuid, ctypes.c_uint(_TEXT_BYTES))
    memory = _Memory()
    _call(nvml, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call(nvml, "nvmlDeviceGetCudaComputeCapability", handle, ctypes.byref(major), ctypes.byref(minor))
    return NvidiaGpu(
        name.value.decode(), uuid.value.decode(), int(memory.total), f"{major.value}.{minor.value}", int(memory.free)
    )


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    _call(nvml, "nvmlInit_v2")
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _handle(nvml: Any, index: int) -> Any:
    handle = ctypes.c_void_p()
    _call(nvml, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    return handle


def _call(nvml: Any, function: str, *arguments: Any) -> None:
    code = getattr(nvml, function)(*arguments)
    if code != 0:
        raise NvmlError(f"{function} returned {code} (see nvmlReturn_t in nvml.h)")
