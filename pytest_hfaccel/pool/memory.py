"""Who holds how much of a device's memory, and who could give some back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pytest_hfaccel.core.errors import PoolExhausted, format_bytes
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool.entry import Entry, State


class Budgets:
    """The budget of each device, asked for once, when the device is first used.

    Args:
        budget: Budget of a device in bytes; `None` for no limit.
    """

    def __init__(self, budget: Callable[[Device], int | None] | None) -> None:
        self._ask = budget
        self._known: dict[Device, int | None] = {}
        self._lock = threading.Lock()

    def of(self, device: Device) -> int | None:
        """The budget of a device in bytes; `None` for no limit."""
        if self._ask is None:
            return None
        with self._lock:  # asking is quick, and two answers would differ
            if device not in self._known:
                self._known[device] = self._ask(device)
            return self._known[device]

    def replace(self, budget: Callable[[Device], int | None]) -> None:
        """Ask `budget` from now on, also for devices that are in use already."""
        with self._lock:
            self._ask = budget
            self._known.clear()

    def to_json(self) -> dict[str, int | None]:
        """The budgets asked for so far, by device id."""
        with self._lock:
            return {device.id: nbytes for device, nbytes in sorted(self._known.items())}


@dataclass(frozen=True)
class Usage:
    """The bytes of one device, by how they can be had.

    Attributes:
        used: Held and reserved.
        idle: Of these, leased by nobody: an eviction away.
        later: Of these, being freed, or leased by threads that go on running, or `passing`.
        passing: Of these, being made for somebody who will not keep a lease: an eviction away as soon as they are made.
    """

    used: int
    idle: int
    later: int
    passing: int


def usage_of(asking: Entry, entries: Iterable[Entry], blocked: Collection[int]) -> Usage:
    """Sum up the device of an entry that needs room.

    Args:
        asking: The entry; its own bytes count as used, and as nothing else.
        entries: All entries; those of other devices are left out.
        blocked: Thread ids that are waiting for memory: their leases do not end before they get some.
    """
    used = idle = later = passing = 0
    for entry in entries:
        if entry.request.device != asking.request.device:
            continue
        used += entry.nbytes
        if entry is asking:
            continue
        if entry.is_idle:
            idle += entry.nbytes
        elif entry.state is State.LOADING and not entry.request.is_leased:
            passing += entry.nbytes
        elif entry.state is State.CLOSING or not set(entry.holders).intersection(blocked):
            later += entry.nbytes
    return Usage(used, idle, later + passing, passing)


def oldest_idle(entries: Iterable[Entry], device: Device | None) -> Entry | None:
    """The idle entry, of a device or of all, whose last lease ended first."""
    idle = [entry for entry in entries if entry.is_idle and device in (None, entry.request.device)]
    return min(idle, key=lambda entry: entry.last_used, default=None)


def usage_text(device: Device, entries: Iterable[Entry]) -> str:
    """One line per entry of a device: what holds its memory."""
    lines = [
        f"  {entry.name}: {format_bytes(entry.nbytes)}, {entry.state.name.lower()}, {len(entry.holders)} lease(s)"
        for entry in entries
        if entry.request.device == device
    ]
    return "\n".join([f"On {device}:", *lines]) if lines else f"On {device} the pool holds nothing else."


def exhausted(entry: Entry, need: int, budget: int, entries: Iterable[Entry]) -> PoolExhausted:
    """The error for an entry that no room can be made for."""
    device = entry.request.device
    return PoolExhausted(
        f"{entry.name!r} needs {format_bytes(max(need, entry.nbytes))} on {device}, and what is leased leaves no room "
        f"for it in the pool's budget of {format_bytes(budget)}.\n"
        + usage_text(device, (other for other in entries if other is not entry)),
        hint="Release models before asking for others, or raise the budget: HFACCEL_POOL_MEMORY='8GiB' or '90%'.",
    )
