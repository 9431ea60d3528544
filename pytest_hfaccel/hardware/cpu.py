"""The CPU and the main memory as this process may use them: affinity and control groups count, not only the machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

# Names of /proc/cpuinfo -> ours. Those that decide how fast, or at which precision, models run.
_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX512_VNNI",
    "avx_vnni": "AVX_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx512_fp16": "AVX512_FP16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX_BF16",
    "amx_int8": "AMX_INT8",
    "amx_fp16": "AMX_FP16",
    "asimd": "NEON",
    "asimdhp": "NEON_FP16",
    "bf16": "BF16",
    "i8mm": "I8MM",
    "sve": "SVE",
}


@dataclass(frozen=True)
class CpuFacts:
    """The CPU.

    Attributes:
        name: Model name.
        cores: Logical CPUs this process may run on, by affinity and control group; at least 1.
        quota: CPUs' worth of time it gets, where a control group limits it.
        flags: Instruction sets that matter for models, e.g. `AVX2`, `AMX_BF16`; empty where they cannot be read.
        memory_bytes: Most main memory this process can have.
        available_bytes: Main memory it can still take.
    """

    name: str
    cores: int
    quota: float | None
    flags: tuple[str, ...]
    memory_bytes: int
    available_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {**asdict(self), "flags": list(self.flags)}


@dataclass(frozen=True)
class Memory:
    """Main memory as this process may have it.

    Attributes:
        total_bytes: All of it.
        available_bytes: What this process can still take.
    """

    total_bytes: int
    available_bytes: int


def read_cpu(root: Path = Path("/")) -> CpuFacts:
    """Read the facts of this machine's CPU.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    name, flags = read_cpuinfo(root)
    limits = read_limits(root)
    memory = read_memory(root)
    return CpuFacts(
        name or platform.processor() or platform.machine(),
        usable_cores(limits),
        limits.cpus,
        flags,
        memory.total_bytes,
        memory.available_bytes,
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """Read how much main memory there is, and is left, for this process.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    import psutil

    limits, memory = read_limits(root), psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    if limits.memory_bytes is not None:
        total = min(total, limits.memory_bytes)
    if limits.memory_room_bytes is not None:
        available = max(0, min(available, limits.memory_room_bytes))
    return Memory(total, available)


def read_cpuinfo(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """Return model name and instruction sets from `/proc/cpuinfo`; both empty where there is none."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "", ()
    fields: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    words = set(fields.get("flags", fields.get("Features", "")).split())
    flags = tuple(name for flag, name in _FLAGS.items() if flag in words)
    implementer = fields.get("CPU implementer")
    name = fields.get("model name") or (f"ARM {implementer}:{fields.get('CPU part', '?')}" if implementer else "")
    return name, flags


def usable_cores(limits: Limits) -> int:
    """Return the logical CPUs this process may keep busy: by affinity, and no more than its quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(limits.cpus) if limits.cpus else cores))


_NO_LIMIT_V1 = 2**60
"""Version 1 writes "no limit" as the largest multiple of the page size below 2**63."""


@dataclass(frozen=True)
class Limits:
    """The tightest limits around this process.

    Attributes:
        cpus: CPUs' worth of time per second; `None` without a quota.
        memory_bytes: Most memory; `None` without a limit.
        memory_room_bytes: What is left of it, page cache counted as free; `None` without a limit.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    memory_room_bytes: int | None = None


def read_limits(root: Path = Path("/")) -> Limits:
    """Read the limits of this process's control groups and of those around them.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    cpus: list[float] = []
    memory: list[int] = []
    room: list[int] = []
    for folder, is_v2 in _folders(root):
        quota = _quota_v2(folder) if is_v2 else _quota_v1(folder)
        if quota is not None:
            cpus.append(quota)
        limit = _number(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        if limit is not None and limit < _NO_LIMIT_V1:
            memory.append(limit)
            room.append(limit - _used(folder, is_v2))
    return Limits(min(cpus, default=None), min(memory, default=None), min(room, default=None))


def _folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of this process's groups and their ancestors, and whether they are of version 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # not Linux
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            # In a container the path is often that of the host and is not there: its ancestor, the mount, is.
            inner = PurePosixPath(path.lstrip("/"))
            for part in (inner, *inner.parents):
                if not controllers:
                    yield base / part, True
                elif controller in ("cpu", "memory"):
                    yield base / controller / part, False


def _quota_v2(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _used(folder: Path, is_v2: bool) -> int:
    used = _number(folder / ("memory.current" if is_v2 else "memory.usage_in_bytes")) or 0
    key = "inactive_file" if is_v2 else "total_inactive_file"
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    reclaimable = next((int(words[1]) for words in lines if words[0] == key), 0)
    return max(0, used - reclaimable)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
