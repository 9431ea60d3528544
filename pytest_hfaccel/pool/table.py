"""The core of the pool: a table of resources, each made once, leased, and evicted when room is needed.

A request for a resource that is there returns at once, whatever else is being loaded.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Hashable
from typing import Any

from pytest_hfaccel.core.errors import HfAccelError, OutOfMemory
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool.counts import Counts
from pytest_hfaccel.pool.entry import Entry, Request, State, key_text
from pytest_hfaccel.pool.memory import Budgets, exhausted, usage_of, usage_text
from pytest_hfaccel.pool.store import EntryStore


class ResourceTable(EntryStore):
    """Resources by key, made on request and within the budgets.

    Args:
        budgets: The memory budgets of the devices.
        patience: Seconds a request waits for leases of other threads to end before it gives up.
    """

    def __init__(self, budgets: Budgets, patience: float) -> None:
        super().__init__()
        self._budgets = budgets
        self._patience = patience
        self._measured: dict[Hashable, int] = {}
        self._waiting: set[int] = set()

    def acquire(self, request: Request) -> Entry:
        """Return the entry of a resource, made if need be, with one lease more.

        Raises:
            PoolExhausted: The budget does not suffice for what is leased and this.
            OutOfMemory: Making it ran out of memory twice.
            HfAccelError: The table is closed, or making the resource asks for the resource itself.
        """
        entry, is_new = self._join(request)
        if is_new:
            self._load(entry)
            return entry
        try:
            entry.outcome.result()
        except BaseException:
            self.release(entry, threading.get_ident())
            raise
        return entry

    def trim(self, device: Device) -> None:
        """Evict idle resources of a device, oldest first, until the rest is within the budget.

        Resources whose sizes nobody knew may be made side by side and exceed it together.
        """
        limit = self._budgets.of(device)
        while limit is not None:
            with self._changed:
                here = [entry for entry in self._entries.values() if entry.request.device == device]
                victim = None
                if sum(entry.nbytes for entry in here) > limit:
                    victim = self._claim_idle(lambda entry: entry.request.device == device and entry.nbytes > 0)
            if victim is None:
                return
            self._free(victim)

    def _join(self, request: Request) -> tuple[Entry, bool]:
        """Take a lease of an entry, which is made if it does not exist; say whether the caller must load it."""
        me = threading.get_ident()
        with self._changed:
            while True:
                if self._closed:
                    raise HfAccelError(f"{key_text(request.key)!r} is asked of a pool that is closed")
                entry = self._entries.get(request.key)
                if entry is None:
                    self._counts_of(request).misses += 1
                    entry = self._entries[request.key] = Entry(request)
                    return entry, True
                if entry.state is State.CLOSING:
                    self._changed.wait()  # for the memory of the old instance: a key never has two
                    continue
                if entry.state is State.LOADING and entry.holders[0] == me:
                    raise HfAccelError(f"making {entry.name!r} asks for {entry.name!r} itself")
                self._counts_of(request).hits += 1
                entry.holders.append(me)
                return entry, False

    def _counts_of(self, request: Request) -> Counts:
        return self.moves if request.is_move else self.counts

    def _load(self, entry: Entry) -> None:
        try:
            value = self._make_within_budget(entry)
            self._publish(entry, value)
        except BaseException as error:
            with self._changed:
                self._counts_of(entry.request).failures += 1
                del self._entries[entry.request.key]
                self._changed.notify_all()
            entry.outcome.set_exception(error)
            raise

    def _publish(self, entry: Entry, value: Any) -> None:
        with self._changed:
            if not self._closed:
                counts = self._counts_of(entry.request)
                counts.loads += 1
                counts.loads_by_key[entry.name] += 1
                entry.state = State.READY
                entry.outcome.set_result(value)
                self._changed.notify_all()
                return
        self._close_value(entry, value)
        raise HfAccelError(f"the pool was closed while {entry.name!r} was loading")

    def _make_within_budget(self, entry: Entry) -> Any:
        request = entry.request
        limit = self._budgets.of(request.device)
        budget = math.inf if limit is None else limit
        known = self._measured.get(request.key)
        self._make_room(entry, request.estimate() if known is None else known, budget)
        value = self._make(entry)
        try:
            with self._changed:
                entry.nbytes = self._measured[request.key] = request.size(value)
            self._make_room(entry, 0, budget)
        except BaseException:
            self._close_value(entry, value)
            raise
        return value

    def _make(self, entry: Entry) -> Any:
        """Call the request's `make`; when the device is out of memory, evict what is idle and try once more."""
        try:
            return self._timed_make(entry)
        except (OutOfMemory, MemoryError):
            pass  # go on outside this block: inside, the traceback would keep the failed attempt's tensors alive
        with self._changed:
            self.counts.oom_retries += 1
        self.evict_idle(entry.request.device)
        gc.collect()  # for what the failed attempt left in reference cycles
        try:
            return self._timed_make(entry)
        except (OutOfMemory, MemoryError) as error:
            problem, stage = str(error) or type(error).__name__, getattr(error, "stage", None)
        with self._changed:
            others = [other for other in self._entries.values() if other is not entry]
            usage = usage_text(entry.request.device, others)
        raise OutOfMemory(f"{problem}\nTried twice, the second time with all idle models evicted. {usage}", stage=stage)

    def _timed_make(self, entry: Entry) -> Any:
        started = time.perf_counter()
        try:
            return entry.request.make()
        finally:
            with self._changed:
                self.counts.load_seconds += time.perf_counter() - started

    def _make_room(self, entry: Entry, more: int, budget: float) -> None:
        """Reserve `more` bytes for an entry: evict what is idle, oldest first, and wait for the leases of others."""
        device = entry.request.device
        deadline = time.monotonic() + self._patience
        has_waited = False
        while True:
            with self._changed:
                usage = usage_of(entry, self._entries.values(), {*self._waiting, threading.get_ident()})
                missing = usage.used + more - budget
                # What is made already and will not be leased need not wait for others like it: see `trim`.
                may_exceed = not more and not entry.request.is_leased and missing <= usage.idle + usage.passing
                if missing <= 0 or (may_exceed and missing > usage.idle):
                    entry.nbytes += more
                    self.counts.saw(device.id, usage.used + more)
                    return
                if missing > usage.idle:
                    worth_it = missing <= usage.idle + usage.later and not entry.request.is_move
                    if not (worth_it and self._wait(deadline, has_waited)):
                        raise exhausted(entry, more, int(budget), self._entries.values())
                    has_waited = True
                    continue
                victim = self._claim_idle(lambda other: other.request.device == device and other.nbytes > 0)
            if victim is not None:
                self._free(victim)

    def _wait(self, deadline: float, has_waited: bool) -> bool:
        """Wait for a change, with the lock given back meanwhile; say whether there is time left for it."""
        me = threading.get_ident()
        self._waiting.add(me)
        if not has_waited:
            # Others may count on this thread's leases to end: they find out that these wait, too.
            self._changed.notify_all()
        try:
            return self._changed.wait(deadline - time.monotonic())
        finally:
            self._waiting.discard(me)
