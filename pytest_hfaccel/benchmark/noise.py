"""How disturbed the machine was during a measurement: a fixed piece of work timed before and after it, and clocks.

A measurement whose loop was slower afterwards, or jumped about, was disturbed by others or by the clock. The loop is
plain Python: it allocates next to nothing, so that it leaves the memory that is being measured alone. Clocks and
throttling of the CPU come from /sys, those of NVIDIA GPUs from NVML; what cannot be read is `None`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.measurement import Noise
from pytest_hfaccel.hardware.nvidia import load_nvml, read_gpu_clock

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
        before_ms=1e3 * statistics.median(before.seconds),
        after_ms=1e3 * statistics.median(after.seconds),
        iqr_share=(quartiles[2] - quartiles[0]) / statistics.median(together),
        clock_mhz=(before.clocks.mhz, after.clocks.mhz),
        throttled=throttled_between(before.clocks, after.clocks),
    )


_CPUS = Path("sys/devices/system/cpu")


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
    kind, _, target = device.partition("+")[0].partition(":")
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
    affinity = getattr(os, "sched_getaffinity", None)
    usable = affinity(0) if affinity else range(os.cpu_count() or 1)
    files = [root / _CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in usable]
    kilohertz = [value for file in files if (value := _number(file))]
    if kilohertz:
        return statistics.fmean(kilohertz) / 1e3
    if root != Path("/"):
        return None
    import psutil

    with suppress(OSError, NotImplementedError, RuntimeError):
        frequency = psutil.cpu_freq()
        return float(frequency.current) if frequency is not None and frequency.current else None
    return None


def _throttle_count(root: Path) -> int | None:
    counts = [_number(path) for path in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
