"""What the pool counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counts:
    """Counters of one pool. `requests == hits + misses`, and when nothing is loading `misses == loads + failures`.

    Attributes:
        hits: Requests that found their resource, or joined a load that was under way.
        misses: Requests that had to load.
        loads: Loads that ended with a resource.
        failures: Loads that ended with an error, and requests that no room could be made for.
        evictions: Idle resources freed to make room.
        oom_retries: Loads tried a second time after the device ran out of memory.
        load_seconds: Wall-clock seconds spent loading, failed attempts included.
        loads_by_key: `loads` per key.
        peak_bytes: Most bytes held and reserved at once, per device id.
        close_errors: What freeing a resource ended with, one text per error.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    failures: int = 0
    evictions: int = 0
    oom_retries: int = 0
    load_seconds: float = 0.0
    loads_by_key: Counter[str] = field(default_factory=Counter)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    close_errors: list[str] = field(default_factory=list)

    def saw(self, device: str, nbytes: int) -> None:
        """Take note of the bytes in use on a device."""
        self.peak_bytes[device] = max(nbytes, self.peak_bytes.get(device, 0))

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {
            "requests": self.hits + self.misses,
            "hits": self.hits,
            "misses": self.misses,
            "loads": self.loads,
            "failures": self.failures,
            "evictions": self.evictions,
            "oom_retries": self.oom_retries,
            "load_seconds": round(self.load_seconds, 6),
            "loads_by_key": dict(sorted(self.loads_by_key.items())),
            "peak_bytes_by_device": dict(sorted(self.peak_bytes.items())),
            "close_errors": list(self.close_errors),
        }
