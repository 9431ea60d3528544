"""How disturbed the machine was during a measurement: a fixed piece of work timed before and after it, and clocks.

A measurement whose loop was slower afterwards, or jumped about, was disturbed by others or by the clock. The loop is
plain Python: it allocates next to nothing, so that it leaves the memory that is being measured alone. Clocks and
throttling of the CPU come from /sys, those of NVIDIA GPUs from NVML; what cannot be read is `None`.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.measurement import Noise
from pytest_hfaccel.hardware.nvidia import NvmlError, list_gpus, load_nvml
from pytest_hfaccel.hardware.visibility import visible_devices

_STEPS = 20_000
"""About a millisecond: long against the resolution of the timer, short against a measurement."""
_REPEATS = 15


def fixed_work() -> int:
    """Do the same integer arithmetic every time: the 31-bit generator of Park and Miller (CACM 31:10, 1988)."""
    state = 1
    for _ in range(_STEPS):
        state = state * 16807 % 2147483647
    return state


@dataclass(frozen=True)
class NoiseReading:
    """The calibration loop at one moment, with the clocks."""

    seconds: tuple[float, ...]
    clocks: Clocks


def read_noise(device: str, clock: Callable[[], float] = time.perf_counter) -> NoiseReading:
    """Time the loop now."""
    seconds = []
    for _ in range(_REPEATS):
        started = clock()
        fixed_work()
        seconds.append(clock() - started)
    return NoiseReading(tuple(seconds), read_clocks(device))


def noise_between(before: NoiseReading, after: NoiseReading) -> Noise:
    """Compare the readings around a measurement."""
    together = [*before.seconds, *after.seconds]
    quartiles = statistics.quantiles(together, n=4, method="inclusive")
    return Noise(
        before_ms=_milliseconds(before.seconds),
        after_ms=_milliseconds(after.seconds),
        iqr_share=(quartiles[2] - quartiles[0]) / statistics.median(together),
        clock_mhz=(before.clocks.mhz, after.clocks.mhz),
        throttled=throttled_between(before.clocks, after.clocks),
    )


def _milliseconds(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds)


_CPUS = Path("sys/devices/system/cpu")
_KILO = 1e3


@dataclass(frozen=True)
class Clocks:
    """A moment of a device's clock.

    Attributes:
        mhz: Mean clock; `None` where it cannot be read.
        throttle_count: Times the CPU was throttled since it started; `None` where the kernel keeps no count.
        throttled: Whether the device is being throttled right now; `None` where it does not say.
    """

    mhz: float | None = None
    throttle_count: int | None = None
    throttled: bool | None = None


def read_clocks(device: str, root: Path = Path("/"), nvml: Any = None) -> Clocks:
    """Read the clock of a device now.

    Args:
        device: Device id; for anything but `cuda:<index>` the CPU's clock is read, which feeds every other device.
        root: Directory that holds `sys`, for tests.
        nvml: NVIDIA's management library; the installed one when not given.
    """
    kind, _, target = device.partition(":")
    if kind == "cuda":
        library = nvml if nvml is not None else load_nvml()
        reading = None if library is None else read_gpu_clock(library, int(target or 0))
        return Clocks() if reading is None else Clocks(reading[0], throttled=reading[1])
    return Clocks(_cpu_mhz(root), _throttle_count(root))


def throttled_between(before: Clocks, after: Clocks) -> bool | None:
    """Whether a device was throttled between two moments; `None` where neither says."""
    if before.throttle_count is not None and after.throttle_count is not None:
        return after.throttle_count > before.throttle_count
    known = [clocks.throttled for clocks in (before, after) if clocks.throttled is not None]
    return any(known) if known else None


def _cpu_mhz(root: Path) -> float | None:
    """Mean clock of the CPUs this process may use, from cpufreq, else from what psutil finds (/proc/cpuinfo)."""
    frequencies = [
        value for cpu in _usable_cpus() if (value := _number(root / _CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq"))
    ]
    if frequencies:
        return statistics.fmean(frequencies) / _KILO
    if root != Path("/"):
        return None
    import psutil

    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return float(frequency.current) if frequency is not None and frequency.current else None


def _throttle_count(root: Path) -> int | None:
    counts = [_number(path) for path in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def _usable_cpus() -> Iterable[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else range(os.cpu_count() or 1)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


_SM_CLOCK = 1
"""NVML_CLOCK_SM of nvml.h."""
_THROTTLING = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""nvmlClocksThrottleReason* of nvml.h that mean the GPU should run faster and may not: software power cap, hardware
slowdown, software thermal slowdown, hardware thermal slowdown, hardware power brake. Being idle (0x01), clocks that
an administrator set (0x02) and sync boost (0x10) are none."""


def read_gpu_clock(nvml: Any, index: int, environ: Mapping[str, str] | None = None) -> tuple[float, bool] | None:
    """Return the clock in MHz and whether the GPU is throttled; `None` where NVML does not say.

    Args:
        nvml: The library, as `hardware.nvidia.load_nvml` returns it.
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
