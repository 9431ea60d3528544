"""What unused means: the rules by which the pool drops resources, and moves models to main memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_hfaccel.core.errors import ConfigError, LoadError, OutOfMemory
from pytest_hfaccel.pool.entry import Entry
from pytest_hfaccel.pool.held import MODEL, ResourceKey, held_by, kind_of
from pytest_hfaccel.pool.low_memory import MB
from pytest_hfaccel.pool.moving import move
from pytest_hfaccel.pool.placement import is_torch_module
from pytest_hfaccel.pool.table import ResourceTable

MAX_AGE_MINUTES = 30.0
LOW_MEMORY_MINUTES = 10.0
SCARCE_MINUTES = 5.0
"""Longest that a resource stays unused: usually, in low-memory mode, and while main memory is scarce."""

LARGE_BYTES = 100 * MB
"""Models above this are dropped at half that age."""
PARK_BYTES = 500 * MB
"""Models above this leave their accelerator in low-memory mode. These numbers are the ResourcePool guide's."""

_JUST_USED_SECONDS = 60.0
"""A model asked for so recently may be running: it is not moved. An engineering margin; the guide has none."""
_OWN_MEMORY = ("cuda", "rocm", "xpu")
"""Kinds of device with memory of their own: moving a model off any other frees nothing."""


def longest_unused(minutes: float, *, low_memory: bool, scarce: bool) -> float:
    """Return the seconds a resource may stay unused.

    Args:
        minutes: What the caller allows.
        low_memory: Whether low-memory mode is on.
        scarce: Whether main memory is scarce.

    Raises:
        ConfigError: `minutes` is negative.
    """
    if minutes < 0:
        raise ConfigError(f"max_age_minutes: {minutes} is negative. Allowed: 0 (everything unused) and more.")
    caps = [minutes, *([LOW_MEMORY_MINUTES] if low_memory else []), *([SCARCE_MINUTES] if scarce else [])]
    return 60 * min(caps)


def is_due(seconds: float) -> Callable[[Entry], bool]:
    """Return whether an entry has been unused for too long, as a function of the entry.

    Args:
        seconds: How long a resource may stay unused, as `longest_unused` returns it.
    """
    now = time.monotonic()

    def due(entry: Entry) -> bool:
        held = held_by(entry)
        limit = min(seconds, 60 * LOW_MEMORY_MINUTES) if held and held.low_memory else seconds
        if kind_of(entry) == MODEL and entry.nbytes > LARGE_BYTES:
            limit /= 2
        return now - entry.last_used >= limit

    return due


def park_large(table: ResourceTable, *, low_memory: bool) -> int:
    """Move large unused models from their accelerators to main memory; return how many.

    A request for one of them brings it back.

    Args:
        table: Where they are.
        low_memory: Whether low-memory mode is on; if not, only models that asked for it are moved.
    """
    parked = 0
    for key in table.view(lambda entry: _to_park(entry, low_memory)):
        if key is None:
            continue
        try:
            move(table, key, key.parked(), "parked in main memory by low-memory mode")
        except (OutOfMemory, LoadError):
            continue  # no room in main memory, or it is being used after all: it stays until it is due
        parked += 1
    return parked


def _to_park(entry: Entry, low_memory: bool) -> ResourceKey | None:
    key, held = entry.request.key, held_by(entry)
    if held is None or not isinstance(key, ResourceKey) or not entry.is_idle or not is_torch_module(held.value):
        return None
    is_large = entry.nbytes > PARK_BYTES and key.device.kind in _OWN_MEMORY
    is_unused = time.monotonic() - entry.last_used >= _JUST_USED_SECONDS
    return key if is_large and is_unused and (low_memory or held.low_memory) else None
