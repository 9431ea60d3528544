"""What the pool holds: entries by key under one lock, and the ways out of it.

The lock guards the state of the entries only. It is never held while a resource is made, moved or freed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool.counts import Counts
from pytest_hfaccel.pool.entry import Entry, State
from pytest_hfaccel.pool.memory import oldest_idle

T = TypeVar("T")


class EntryStore:
    """Entries by key: seen, released, taken out of use and freed.

    Attributes:
        counts: What was counted of requests.
        moves: The same of moves between devices, whose `loads` are those that succeeded.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.moves = Counts()
        self._changed = threading.Condition()
        self._entries: dict[Hashable, Entry] = {}
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def release(self, entry: Entry, holder: int) -> None:
        """End the lease that the thread `holder` took."""
        with self._changed:
            if holder in entry.holders:
                entry.holders.remove(holder)
            entry.last_used = time.monotonic()
            self._changed.notify_all()

    def evict_idle(self, device: Device | None = None) -> int:
        """Free every resource that nobody leases, of one device or of all; return how many."""
        return self.evict(lambda entry: device in (None, entry.request.device))

    def evict(self, accepts: Callable[[Entry], bool]) -> int:
        """Free the resources that nobody leases and that `accepts` picks; return how many.

        Args:
            accepts: Asked under the lock, possibly several times per entry; must be quick.
        """
        evicted = 0
        while True:
            with self._changed:
                victim = self._claim_idle(accepts)
            if victim is None:
                return evicted
            self._free(victim)
            evicted += 1

    def claim(self, key: Hashable, patience: float = 0.0) -> Entry | None:
        """Take a resource out of use without freeing it; end with `restore` or `forget`.

        Who asks for its key meanwhile waits.

        Args:
            key: The resource.
            patience: Seconds to wait until nobody leases it.

        Returns:
            Its entry; `None` when there is none that is ready, or when it was leased all the time.
        """
        deadline = time.monotonic() + patience
        with self._changed:
            # One that is being made, moved or freed is not waited for: that might be waiting for the caller.
            while (entry := self._entries.get(key)) is not None and entry.state is State.READY:
                if entry.is_idle:
                    entry.state = State.CLOSING
                    return entry
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return None
        return None

    def restore(self, entry: Entry) -> None:
        """Put a claimed resource back into use, unless the pool was closed meanwhile."""
        with self._changed:
            entry.state = State.READY
            if self._closed:
                del self._entries[entry.request.key]
            self._changed.notify_all()

    def forget(self, entry: Entry) -> None:
        """Take a claimed resource out of the table; its value lives on elsewhere."""
        with self._changed:
            del self._entries[entry.request.key]
            self._changed.notify_all()

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

    def view(self, read: Callable[[Entry], T]) -> list[T]:
        """Return what `read` says of each entry, all at the same moment."""
        with self._changed:
            return [read(entry) for entry in self._entries.values()]

    def stats(self) -> dict[str, Any]:
        """The counters as plain JSON."""
        with self._changed:
            return {**self.counts.to_json(), "moves": self.moves.loads}

    def _claim_idle(self, accepts: Callable[[Entry], bool]) -> Entry | None:
        """Take the longest idle entry of those accepted out of use, if there is one; the caller frees it unlocked."""
        victim = oldest_idle(filter(accepts, self._entries.values()), None)
        if victim is not None:
            victim.state = State.CLOSING
            self.counts.evictions += 1
        return victim

    def _free(self, entry: Entry) -> None:
        try:
            self._close_value(entry, entry.outcome.result())
        finally:
            self.forget(entry)

    def _close_value(self, entry: Entry, value: Any) -> None:
        try:
            entry.request.close(value)
        except Exception as error:  # the resource is given up either way, and whoever needs the room is not to blame
            with self._changed:
                self.counts.close_errors.append(f"{entry.name}: {type(error).__name__}: {error}")
