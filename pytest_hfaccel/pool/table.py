"""The core of the pool: a table of resources, each made once, leased, and evicted when room is needed.

One lock guards the table's own state. It is never held while a resource is made or freed, so a request for a resource
that is there returns at once, whatever else is being loaded.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Hashable
from typing import Any

from pytest_hfaccel.errors import HfAccelError, OutOfMemory
from pytest_hfaccel.pool.counts import Counts
from pytest_hfaccel.pool.entry import Entry, Request, State, key_text
from pytest_hfaccel.pool.memory import Budgets, exhausted, oldest_idle, usage_of, usage_text
from pytest_hfaccel.spec import Device


class ResourceTable:
    """Resources by key.

    Args:
        budgets: The memory budgets of the devices.
        patience: Seconds a request waits for leases of other threads to end before it gives up.
    """

    def __init__(self, budgets: Budgets, patience: float) -> None:
        self.counts = Counts()
        self._budgets = budgets
        self._patience = patience
        self._changed = threading.Condition()
        self._entries: dict[Hashable, Entry] = {}
        self._measured: dict[Hashable, int] = {}
        self._waiting: set[int] = set()
        self._closed = False

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

    def release(self, entry: Entry, holder: int) -> None:
        """End the lease that the thread `holder` took."""
        with self._changed:
            if holder in entry.holders:
                entry.holders.remove(holder)
            entry.last_used = time.monotonic()
            self._changed.notify_all()

    def evict_idle(self, device: Device | None = None) -> int:
        """Free every resource that nobody leases, of one device or of all; return how many."""
        evicted = 0
        while True:
            with self._changed:
                victim = self._claim_idle(device)
            if victim is None:
                return evicted
            self._free(victim)
            evicted += 1

    def close(self) -> list[str]:
        """Free everything, leased or not, and refuse further requests; return what freeing ended with."""
        with self._changed:
            self._closed = True
            entries = [entry for entry in self._entries.values() if entry.state is State.READY]
            for entry in entries:
                entry.state = State.CLOSING
        for entry in entries:
            self._free(entry)
        return list(self.counts.close_errors)

    def usage(self) -> list[dict[str, Any]]:
        """Each entry as plain JSON: key, device, bytes, leases, state."""
        with self._changed:
            return [
                {
                    "key": entry.name,
                    "device": entry.request.device.id,
                    "bytes": entry.nbytes,
                    "leases": len(entry.holders),
                    "state": entry.state.name.lower(),
                }
                for entry in self._entries.values()
            ]

    def stats(self) -> dict[str, Any]:
        """The counters as plain JSON."""
        with self._changed:
            return self.counts.to_json()

    def _join(self, request: Request) -> tuple[Entry, bool]:
        """Take a lease of an entry, which is made if it does not exist; say whether the caller must load it."""
        me = threading.get_ident()
        with self._changed:
            while True:
                if self._closed:
                    raise HfAccelError(f"{key_text(request.key)!r} is asked of a pool that is closed")
                entry = self._entries.get(request.key)
                if entry is None:
                    self.counts.misses += 1
                    entry = self._entries[request.key] = Entry(request)
                    return entry, True
                if entry.state is State.CLOSING:
                    self._changed.wait()  # for the memory of the old instance: a key never has two
                    continue
                if entry.state is State.LOADING and entry.holders[0] == me:
                    raise HfAccelError(f"making {entry.name!r} asks for {entry.name!r} itself")
                self.counts.hits += 1
                entry.holders.append(me)
                return entry, False

    def _load(self, entry: Entry) -> None:
        try:
            value = self._make_within_budget(entry)
            self._publish(entry, value)
        except BaseException as error:
            with self._changed:
                self.counts.failures += 1
                del self._entries[entry.request.key]
                self._changed.notify_all()
            entry.outcome.set_exception(error)
            raise

    def _publish(self, entry: Entry, value: Any) -> None:
        with self._changed:
            if not self._closed:
                self.counts.loads += 1
                self.counts.loads_by_key[entry.name] += 1
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
                usage = usage_of(device, self._entries.values(), {*self._waiting, threading.get_ident()})
                missing = usage.used + more - budget
                if missing <= 0:
                    entry.nbytes += more
                    self.counts.saw(device.id, usage.used + more)
                    return
                if missing > usage.idle:
                    worth_it = missing <= usage.idle + usage.later
                    if not (worth_it and self._wait(deadline, has_waited)):
                        raise exhausted(entry, more, int(budget), self._entries.values())
                    has_waited = True
                    continue
                victim = self._claim_idle(device)
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

    def _claim_idle(self, device: Device | None) -> Entry | None:
        """Take the longest idle entry out of use, if there is one; the caller frees it without the lock."""
        victim = oldest_idle(self._entries.values(), device)
        if victim is not None:
            victim.state = State.CLOSING
            self.counts.evictions += 1
        return victim

    def _free(self, entry: Entry) -> None:
        try:
            self._close_value(entry, entry.outcome.result())
        finally:
            with self._changed:
                del self._entries[entry.request.key]
                self._changed.notify_all()

    def _close_value(self, entry: Entry, value: Any) -> None:
        try:
            entry.request.close(value)
        except Exception as error:  # the resource is given up either way, and whoever needs the room is not to blame
            with self._changed:
                self.counts.close_errors.append(f"{entry.name}: {type(error).__name__}: {error}")
