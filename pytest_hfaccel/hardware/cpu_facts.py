"""The CPU as this process may use it: model, cores, instruction sets, memory."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.hardware.cgroup import Limits, read_limits

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


def read_cpu(root: Path = Path("/")) -> CpuFacts:
    """Read the facts of this machine's CPU.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    import psutil

    name, flags = read_cpuinfo(root)
    limits = read_limits(root)
    memory = psutil.virtual_memory()
    return CpuFacts(
        name or platform.processor() or platform.machine(),
        usable_cores(limits),
        limits.cpus,
        flags,
        min(int(memory.total), limits.memory_bytes or int(memory.total)),
        max(0, min(int(memory.available), _or(limits.memory_room_bytes, int(memory.available)))),
    )


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
    flags = tuple(ours for theirs, ours in _FLAGS.items() if theirs in words)
    implementer = fields.get("CPU implementer")
    name = fields.get("model name") or (f"ARM {implementer}:{fields.get('CPU part', '?')}" if implementer else "")
    return name, flags


def usable_cores(limits: Limits) -> int:
    """Return the logical CPUs this process may keep busy: by affinity, and no more than its quota rounded up."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(limits.cpus) if limits.cpus else cores))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
