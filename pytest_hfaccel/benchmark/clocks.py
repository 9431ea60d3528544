"""Clocks and throttling: of the CPU from /sys, of NVIDIA GPUs from NVML. What cannot be read is `None`."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.gpu_clock import read_gpu_clock
from pytest_hfaccel.hardware.nvml import load_nvml

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
        root: Where `/sys` is looked for.
        nvml: NVIDIA's management library; the installed one when not given.
    """
    kind, _, target = device.partition(":")
    if kind == "cuda":
        library = nvml if nvml is not None else load_nvml()
        found = None if library is None else read_gpu_clock(library, int(target or 0))
        return Clocks() if found is None else Clocks(found[0], throttled=found[1])
    return Clocks(_cpu_mhz(root), _throttle_count(root))


def throttled_between(before: Clocks, after: Clocks) -> bool | None:
    """Whether a device was throttled between two moments; `None` where neither says."""
    if before.throttle_count is not None and after.throttle_count is not None:
        return after.throttle_count > before.throttle_count
    known = [clocks.throttled for clocks in (before, after) if clocks.throttled is not None]
    return any(known) if known else None


def _cpu_mhz(root: Path) -> float | None:
    """Mean clock of the CPUs this process may use, from cpufreq, else from what psutil finds (/proc/cpuinfo)."""
    found = [value for cpu in _usable_cpus() if (value := _number(root / _CPUS / f"cpu{cpu}/cpufreq/scaling_cur_freq"))]
    if found:
        return statistics.fmean(found) / _KILO
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
