"""The clock of an NVIDIA GPU and whether it is being throttled, from NVML."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.hardware.hidden import visible_devices
from pytest_hfaccel.hardware.nvml import NvmlError, list_gpus

_SM_CLOCK = 1
"""NVML_CLOCK_SM of nvml.h."""
_THROTTLING = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""nvmlClocksThrottleReason* of nvml.h that mean the GPU should run faster and may not: software power cap, hardware
slowdown, software thermal slowdown, hardware thermal slowdown, hardware power brake. Being idle (0x01), clocks that
an administrator set (0x02) and sync boost (0x10) are none."""


def read_gpu_clock(nvml: Any, index: int, environ: Mapping[str, str] | None = None) -> tuple[float, bool] | None:
    """Return the clock in MHz and whether the GPU is throttled; `None` where NVML does not say.

    Args:
        nvml: The library, as `hardware.nvml.load_nvml` returns it.
        index: torch's number of the GPU: CUDA_VISIBLE_DEVICES may hide and reorder what NVML lists.
        environ: Environment to read instead of `os.environ`.
    """
    try:
        _, gpus = list_gpus(nvml)
        uuids = [gpu.uuid for gpu in gpus]
        order = visible_devices(
            len(gpus), ["CUDA_VISIBLE_DEVICES"], os.environ if environ is None else environ, uuids
        ).order
        return _read(nvml, order[index])
    except (NvmlError, AttributeError, IndexError):
        return None


def _read(nvml: Any, index: int) -> tuple[float, bool]:
    _call(nvml, "nvmlInit_v2")
    try:
        handle, clock, reasons = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_ulonglong()
        _call(nvml, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        _call(nvml, "nvmlDeviceGetClockInfo", handle, ctypes.c_uint(_SM_CLOCK), ctypes.byref(clock))
        _call(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle, ctypes.byref(reasons))
    finally:
        nvml.nvmlShutdown()
    return float(clock.value), bool(reasons.value & _THROTTLING)


def _call(nvml: Any, function: str, *arguments: Any) -> None:
    code = getattr(nvml, function)(*arguments)
    if code != 0:
        raise NvmlError(f"{function} returned {code} (see nvmlReturn_t in nvml.h)")
