"""Limits a container or service manager puts on this process: Linux control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
