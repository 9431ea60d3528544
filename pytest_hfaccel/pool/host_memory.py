"""Free memory of the host, as far as this process may have it: the cgroup's limit counts, not only the machine's."""

from __future__ import annotations

from pathlib import Path

import psutil


def free_host_bytes(root: Path = Path("/")) -> int:
    """Return the bytes this process can still take: of the machine, or of the tightest cgroup around it.

    Args:
        root: Where `/proc` and `/sys` are looked for.
    """
    from pytest_hfaccel.hardware.cgroup import read_limits

    available = int(psutil.virtual_memory().available)
    room = read_limits(root).memory_room_bytes
    return max(0, available if room is None else min(available, room))
