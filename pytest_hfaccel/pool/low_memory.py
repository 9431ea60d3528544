"""Main memory: how much there is, when it is scarce, and low-memory mode."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

MB = 2**20
ENVIRONMENT = "RESOURCE_POOL_LOW_MEMORY"
LOW_MEMORY_BYTES = 4096 * MB
"""Available main memory below which low-memory mode is on by itself; the ResourcePool guide's 4096 MB."""
_SCARCE_SHARE = 0.20
"""Share of main memory below which what is available counts as pressure; from the ResourcePool guide."""
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class MainMemory:
    """Main memory as this process may have it: the tightest control group counts, not only the machine.

    Attributes:
        total_bytes: All of it.
        available_bytes: What this process can still take.
    """

    total_bytes: int
    available_bytes: int

    @property
    def is_scarce(self) -> bool:
        """Whether less than a fifth is available."""
        return self.available_bytes < _SCARCE_SHARE * self.total_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the form of the statistics; MB of 2**20 bytes."""
        used = 1 - self.available_bytes / self.total_bytes if self.total_bytes else 0.0
        return {
            "total_mb": round(self.total_bytes / MB, 1),
            "available_mb": round(self.available_bytes / MB, 1),
            "percent_used": round(100 * used, 1),
            "under_pressure": self.is_scarce,
        }


def read_main_memory() -> MainMemory:
    """Read it now."""
    import psutil

    from pytest_hfaccel.hardware.cgroup import read_limits
    from pytest_hfaccel.pool.host_memory import free_host_bytes

    total = int(psutil.virtual_memory().total)
    return MainMemory(min(total, read_limits().memory_bytes or total), free_host_bytes())


class LowMemoryMode:
    """On or off: as somebody set it, else as the environment says, else by the memory that is available now."""

    def __init__(self) -> None:
        self._set: bool | None = None

    def enable(self, enabled: bool) -> None:
        """Set it, whatever the environment and the memory say."""
        self._set = enabled

    @property
    def is_on(self) -> bool:
        """Whether it is on now.

        Raises:
            ConfigError: The environment variable has a value that is neither yes nor no.
        """
        if self._set is not None:
            return self._set
        asked = os.environ.get(ENVIRONMENT, "").strip().lower()
        if asked in _ON:
            return True
        if asked in _OFF:
            return False
        if asked:
            raise ConfigError(f"{ENVIRONMENT}: {asked!r} is not a switch. Allowed: {', '.join((*_ON, *_OFF))}.")
        return read_main_memory().available_bytes < LOW_MEMORY_BYTES
