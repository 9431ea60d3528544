"""Memory of this process, and a runtime that ran out of it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import OutOfMemory, first_line, is_out_of_memory


@contextmanager
def out_of_memory_raised(device: str, stage: str) -> Iterator[None]:
    """Turn a runtime's out-of-memory error inside the block into `OutOfMemory`.

    Args:
        device: Device id, for the message.
        stage: The stage it is booked under.

    Raises:
        OutOfMemory: The block ran out of memory.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{device} ran out of memory: {first_line(error)}", stage=stage) from error


_UNITS_TO_BYTES = 1024
"""`/proc/<pid>/status` counts in kB, by which it means KiB; so does `ru_maxrss` on Linux."""

_RESET_PEAK = "5"
"""Writing this to `/proc/<pid>/clear_refs` resets the peak resident set to the current one (proc_pid_clear_refs(5))."""


_MALLINFO = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


@contextmanager
def occupied_in_process(nbytes: int) -> Iterator[None]:
    """Hold that many more bytes in the resident set of this process.

    A mapping of its own, each page of which is written to: it does not go through the system's allocator, which keeps
    freed blocks, so that the resident set grows by this much and shrinks by it again.
    """
    with mmap.mmap(-1, nbytes) as pages:
        for page in range(0, nbytes, mmap.PAGESIZE):
            pages[page] = 1
        yield


class ProcessMemory:
    """The resident set of this process, and its peak.

    On Linux the kernel's own high-water mark is reset and read: sampling would miss short peaks. Elsewhere, and where
    the kernel refuses the reset, the peak is that of the whole life of the process, and `peak_source` says so.

    Args:
        proc: The process's folder in procfs.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._was_reset = False

    def reset_peak(self) -> None:
        """Start a new peak where the system allows it."""
        try:
            (self._proc / "clear_refs").write_text(_RESET_PEAK)
        except OSError:
            self._was_reset = False
        else:
            self._was_reset = True

    def note(self) -> None:
        """Do nothing after a run: the kernel keeps the peak."""

    def occupied(self, nbytes: int) -> AbstractContextManager[None]:
        """Hold that many more bytes."""
        return occupied_in_process(nbytes)

    def read(self) -> dict[str, Any]:
        """Return `current_bytes`, `peak_bytes`, `source` and `peak_source`."""
        import psutil

        info = psutil.Process().memory_info()
        peak, source = self._peak(info)
        return {
            "current_bytes": info.rss,
            "peak_bytes": max(peak, info.rss),
            "source": "process",
            "peak_source": source,
        }

    def counters(self) -> dict[str, int]:
        """Return bytes in use by allocators of this process, by name: what libraries in C and C++ have asked for.

        Empty where the system's library does not count: `mallinfo2` is glibc's, from 2.33 on.
        """
        import ctypes

        class Info(ctypes.Structure):
            """`struct mallinfo2`; see mallinfo(3)."""

            _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]

        try:
            ask = ctypes.CDLL(None).mallinfo2
        except (AttributeError, OSError, TypeError):
            return {}
        ask.restype = Info
        info = ask()
        return {"C heap": int(info.uordblks) + int(info.hblkhd)}

    def _peak(self, info: Any) -> tuple[int, str]:
        high_water = self._high_water_mark()
        if high_water is not None:
            since = "since its reset" if self._was_reset else "since the process began"
            return high_water, f"VmHWM {since}"
        if hasattr(info, "peak_wset"):
            return int(info.peak_wset), "peak working set since the process began"
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else _UNITS_TO_BYTES
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss since the process began"

    def _high_water_mark(self) -> int | None:
        try:
            lines = (self._proc / "status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * _UNITS_TO_BYTES for line in lines if line.startswith("VmHWM:")), None)
