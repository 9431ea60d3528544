"""Free memory of the host, as far as this process may have it: the cgroup's limit counts, not only the machine's."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import psutil


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the bytes this process can still take: of the machine, or of the tightest cgroup around it.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    available = int(psutil.virtual_memory().available)
    return max(0, min([available, *_cgroup_room(root)]))


def _cgroup_room(root: Path) -> list[int]:
    """Free bytes of each memory cgroup this process is in (versions 1 and 2); empty without a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []  # no cgroups here: not Linux
    room = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            room += _walk_up(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            room += _walk_up(base, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return room


def _walk_up(base: Path, path: str, limit: str, usage: str, reclaimable: str) -> list[int]:
    """Free bytes of a cgroup and its ancestors: each limit applies. In a container only the root may be visible."""
    inner = PurePosixPath(path.lstrip("/"))
    folders = [base / part for part in (inner, *inner.parents)]
    return [room for folder in folders if (room := _room(folder, limit, usage, reclaimable)) is not None]


def _room(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    try:
        bound = (folder / limit).read_text().strip()
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if bound == "max":
        return None
    # The kernel gives up page cache before it refuses memory, so it does not count as used.
    return int(bound) - (used - min(used, int(stat.get(reclaimable, 0))))
