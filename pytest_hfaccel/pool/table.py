"""Resources by key: each made once, leased, and evicted when a device's memory budget needs the room.

One lock guards the state of the entries. It is never held while a resource is made, moved or freed, so a request for a
resource that is there returns at once, whatever else is being loaded.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

from pytest_hfaccel.core.errors import HfAccelError, OutOfMemory, PoolExhausted, format_bytes
from pytest_hfaccel.core.spec import Device

T = TypeVar("T")
Budget = Callable[[Device], int | None]
"""Bytes that may be held on a device; `None`: no limit."""


@dataclass(frozen=True)
class Request:
    """How to get a resource that may exist already.

    Attributes:
        key: What makes two resources interchangeable.
        device: The device whose memory it takes.
        make: Makes it; called at most once at a time per key, and with no lock held.
        size: Bytes a made resource holds on the device.
        close: Frees a made resource.
        estimate: Bytes to reserve before `make` is called; asked only when the key was never made before.
        is_leased: Whether it stays until the lease is released. If not, it can be evicted as soon as it is made.
        is_move: Whether `make` moves what the table holds elsewhere. A move is no request in the statistics.
        most_idle: How many resources of the device stay when nobody leases them; `None`: as many as the budget allows.
    """

    key: Hashable
    device: Device
    make: Callable[[], Any]
    size: Callable[[Any], int]
    close: Callable[[Any], None] = lambda _: None
    estimate: Callable[[], int] = lambda: 0
    is_leased: bool = True
    is_move: bool = False
    most_idle: int | None = None


class State(Enum):
    """The life of an entry: made, used, freed."""

    LOADING = auto()
    READY = auto()
    CLOSING = auto()


@dataclass(eq=False)
class Entry:
    """One resource of the table. Every field but `request` and `outcome` changes under the table's lock only.

    Attributes:
        request: What it was made from.
        last_used: When it was last asked for, or its last lease ended, by the table's clock.
        leases: How many there are.
        state: Where in its life it is.
        nbytes: Bytes reserved while loading, measured bytes from then on.
        outcome: The resource, or the error that making it ended with.
        maker: Id of the thread that makes it.
    """

    request: Request
    last_used: float
    leases: int = 0
    state: State = State.LOADING
    nbytes: int = 0
    outcome: Future[Any] = field(default_factory=Future)
    maker: int = field(default_factory=threading.get_ident)

    @property
    def is_idle(self) -> bool:
        """Whether it may be evicted."""
        return self.state is State.READY and not self.leases

    @property
    def name(self) -> str:
        """The key as text, for messages and statistics."""
        return key_text(self.request.key)

    def to_json(self) -> dict[str, Any]:
        """Key, device, bytes, leases and state as plain JSON."""
        return {
            "key": self.name,
            "device": self.request.device.id,
            "bytes": self.nbytes,
            "leases": self.leases,
            "state": self.state.name.lower(),
        }


def key_text(key: Hashable) -> str:
    """Return a key as text: the parts of a tuple separated by blanks, e.g. `gpt2 tiny cuda:0 fp16`."""
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


class ResourceTable:
    """The entries of a model cache.

    Nobody waits for the leases of others: a request that finds no room fails with what holds it.

    Args:
        budget: Asked once per device, when the device is first used.
        clock: Seconds, for the order in which entries were used.
    """

    def __init__(self, budget: Budget | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._budget = budget
        self._changed = threading.Condition()
        self._entries: dict[Hashable, Entry] = {}
        self._limits: dict[Device, int | None] = {}
        self._measured: dict[Hashable, int] = {}
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._loads_by_key: Counter[str] = Counter()
        self._load_seconds = 0.0
        self._peak_bytes: Counter[str] = Counter()
        self._close_errors: list[str] = []

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def set_budget(self, budget: Budget) -> None:
        """Ask `budget` from now on, also for devices that are in use already."""
        with self._changed:
            self._budget = budget
            self._limits.clear()

    def acquire(self, request: Request) -> Entry:
        """Return the entry of a resource, made if need be, with one lease more if the request takes one.

        Raises:
            PoolExhausted: The budget does not suffice for what is leased and this.
            OutOfMemory: Making it ran out of memory twice.
            HfAccelError: The table is closed, or making the resource asks for the resource itself.
        """
        entry, is_new = self._join(request)
        if is_new:
            self._load(entry)
            if not request.is_leased:
                self._trim(request.device)
            return entry
        try:
            entry.outcome.result()
        except BaseException:
            self.release(entry)
            raise
        return entry

    def release(self, entry: Entry) -> None:
        """End a lease. What has been idle longest is freed where the device is to keep fewer than are idle now."""
        with self._changed:
            entry.leases = max(0, entry.leases - 1)
            entry.last_used = self.clock()
            self._changed.notify_all()
        device, most = entry.request.device, entry.request.most_idle
        if most is not None:
            self.evict(lambda other: other.request.device == device, keep=most)

    def evict(self, accepts: Callable[[Entry], bool] = lambda _: True, keep: int = 0) -> int:
        """Free the resources that nobody leases and that `accepts` picks, longest idle first; return how many.

        Args:
            accepts: Asked under the lock, possibly several times per entry; must be quick.
            keep: How many of them stay.
        """
        evicted = 0
        while True:
            with self._changed:
                victim = self._take_idle(accepts, keep)
            if victim is None:
                return evicted
            self._free(victim)
            evicted += 1

    def take_out(self, key: Hashable) -> Entry | None:
        """Take an idle resource out of use without freeing it, `None` if there is none; end with `restore` or `forget`.

        Requests for its key wait until then.
        """
        with self._changed:
            entry = self._entries.get(key)
            if entry is None or not entry.is_idle:
                return None
            entry.state = State.CLOSING
            return entry

    def restore(self, entry: Entry) -> None:
        """Put a resource that was taken out back into use, unless the table was closed meanwhile."""
        with self._changed:
            entry.state = State.READY
            if self._closed:
                del self._entries[entry.request.key]
            self._changed.notify_all()

    def forget(self, entry: Entry) -> None:
        """Remove a resource that was taken out; its value lives on elsewhere."""
        with self._changed:
            del self._entries[entry.request.key]
            self._changed.notify_all()

    def close(self) -> list[str]:
        """Free everything, leased or not, and refuse further requests; return the errors of freeing."""
        with self._changed:
            self._closed = True
            entries = [entry for entry in self._entries.values() if entry.state is State.READY]
            for entry in entries:
                entry.state = State.CLOSING
        for entry in entries:
            self._free(entry)
        return list(self._close_errors)

    def view(self, read: Callable[[Entry], T]) -> list[T]:
        """Return what `read` says of each entry, all at the same moment."""
        with self._changed:
            return [read(entry) for entry in self._entries.values()]

    def stats(self) -> dict[str, Any]:
        """The counters as plain JSON; when nothing is loading, `misses == loads + failures`."""
        with self._changed:
            nbytes: Counter[str] = Counter()
            for entry in self._entries.values():
                nbytes[entry.request.device.id] += entry.nbytes
            counts = self._counts
            return {
                "requests": counts["hits"] + counts["misses"],
                **{name: counts[name] for name in ("hits", "misses", "loads", "failures", "evictions", "oom_retries")},
                "load_seconds": round(self._load_seconds, 6),
                "loads_by_key": dict(sorted(self._loads_by_key.items())),
                "peak_bytes_by_device": dict(sorted(self._peak_bytes.items())),
                "close_errors": list(self._close_errors),
                "moves": counts["moves"],
                "bytes_by_device": dict(sorted(nbytes.items())),
                "budget_by_device": {device.id: limit for device, limit in sorted(self._limits.items())},
            }

    def _join(self, request: Request) -> tuple[Entry, bool]:
        """Return the entry of a request, a new one if there is none; say whether the caller must load it."""
        with self._changed:
            while True:
                if self._closed:
                    raise HfAccelError(f"{key_text(request.key)!r} is requested from a closed pool")
                entry = self._entries.get(request.key)
                if entry is None or entry.state is not State.CLOSING:
                    break
                self._changed.wait()  # for the memory of the old instance: a key never has two
            is_new = entry is None
            if entry is None:
                entry = self._entries[request.key] = Entry(request, self.clock())
            elif entry.state is State.LOADING and entry.maker == threading.get_ident():
                raise HfAccelError(f"making {entry.name!r} asks for {entry.name!r} itself")
            if not request.is_move:
                self._counts["misses" if is_new else "hits"] += 1
            entry.leases += request.is_leased
            entry.last_used = self.clock()
            return entry, is_new

    def _load(self, entry: Entry) -> None:
        try:
            self._publish(entry, self._make_within_budget(entry))
        except BaseException as error:
            with self._changed:
                self._counts["failures"] += not entry.request.is_move
                del self._entries[entry.request.key]
                self._changed.notify_all()
            entry.outcome.set_exception(error)
            raise

    def _publish(self, entry: Entry, value: Any) -> None:
        with self._changed:
            if not self._closed:
                if entry.request.is_move:
                    self._counts["moves"] += 1
                else:
                    self._counts["loads"] += 1
                    self._loads_by_key[entry.name] += 1
                entry.state = State.READY
                entry.outcome.set_result(value)
                self._changed.notify_all()
                return
        self._close_value(entry, value)
        raise HfAccelError(f"the pool was closed while {entry.name!r} was loading")

    def _make_within_budget(self, entry: Entry) -> Any:
        request = entry.request
        measured = self._measured.get(request.key)
        self._make_room(entry, request.estimate() if measured is None else measured)
        value = self._make(entry)
        try:
            with self._changed:
                entry.nbytes = self._measured[request.key] = request.size(value)
            self._make_room(entry, 0)
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
            self._counts["oom_retries"] += 1
        device = entry.request.device
        self.evict(lambda other: other.request.device == device)
        gc.collect()  # for what the failed attempt left in reference cycles
        try:
            return self._timed_make(entry)
        except (OutOfMemory, MemoryError) as error:
            problem, stage = str(error) or type(error).__name__, getattr(error, "stage", None)
        with self._changed:
            usage = _usage_text(device, (other for other in self._entries.values() if other is not entry))
        raise OutOfMemory(f"{problem}\nTried twice, the second time with all idle models evicted. {usage}", stage=stage)

    def _timed_make(self, entry: Entry) -> Any:
        started = time.perf_counter()
        try:
            return entry.request.make()
        finally:
            with self._changed:
                self._load_seconds += time.perf_counter() - started

    def _make_room(self, entry: Entry, more: int) -> None:
        """Reserve `more` bytes for an entry, evicting what is idle, longest idle first."""
        device = entry.request.device
        limit = self._limit(device)
        while True:
            with self._changed:
                on_device = [other for other in self._entries.values() if other.request.device == device]
                used = sum(other.nbytes for other in on_device) + more
                missing = used - (math.inf if limit is None else limit)
                idle = sum(other.nbytes for other in on_device if other.is_idle)
                # Resources that nobody leases do not wait for others like them: `_trim` evicts one of them soon.
                passing = [
                    o for o in on_device if o.state is State.LOADING and not o.request.is_leased and o is not entry
                ]
                may_exceed = not entry.request.is_leased and missing <= idle + sum(other.nbytes for other in passing)
                if missing <= 0 or (missing > idle and may_exceed):
                    entry.nbytes += more
                    self._peak_bytes[device.id] = max(self._peak_bytes[device.id], used)
                    return
                if missing > idle:
                    freed = sum(other.nbytes for other in on_device if other.state is State.CLOSING)
                    # A move does not wait for what is being freed: that may be a move which waits for this one.
                    if missing > idle + freed or entry.request.is_move:
                        raise _exhausted(entry, more, int(limit or 0), on_device)
                    self._changed.wait()
                    continue
                victim = self._take_idle(lambda other: other.request.device == device and other.nbytes > 0)
            if victim is not None:
                self._free(victim)

    def _trim(self, device: Device) -> None:
        """Evict idle resources of a device until the rest is within the budget, which several may exceed."""
        limit = self._limit(device)
        while limit is not None:
            with self._changed:
                used = sum(entry.nbytes for entry in self._entries.values() if entry.request.device == device)
                fits = used <= limit
                victim = None if fits else self._take_idle(lambda e: e.request.device == device and e.nbytes > 0)
            if victim is None:
                return
            self._free(victim)

    def _limit(self, device: Device) -> int | None:
        with self._changed:  # asking is quick, and two answers would differ
            if self._budget is None:
                return None
            if device not in self._limits:
                self._limits[device] = self._budget(device)
            return self._limits[device]

    def _take_idle(self, accepts: Callable[[Entry], bool], keep: int = 0) -> Entry | None:
        """Take the longest idle entry of those accepted out of use; the caller frees it without the lock.

        None is taken where no more than `keep` are idle.
        """
        idle = [entry for entry in self._entries.values() if entry.is_idle and accepts(entry)]
        if len(idle) <= keep:
            return None
        victim = min(idle, key=lambda entry: entry.last_used)
        victim.state = State.CLOSING
        self._counts["evictions"] += 1
        return victim

    def _free(self, entry: Entry) -> None:
        try:
            self._close_value(entry, entry.outcome.result())
        finally:
            self.forget(entry)

    def _close_value(self, entry: Entry, value: Any) -> None:
        try:
            entry.request.close(value)
        except Exception as error:  # the resource is given up either way, and the request that needs room goes on
            with self._changed:
                self._close_errors.append(f"{entry.name}: {type(error).__name__}: {error}")


def _usage_text(device: Device, entries: Iterable[Entry]) -> str:
    """One line per entry of a device: what holds its memory."""
    lines = [
        f"  {entry.name}: {format_bytes(entry.nbytes)}, {entry.state.name.lower()}, {entry.leases} lease(s)"
        for entry in entries
        if entry.request.device == device
    ]
    return "\n".join([f"On {device}:", *lines]) if lines else f"On {device} the pool contains nothing else."


def _exhausted(entry: Entry, need: int, limit: int, entries: Iterable[Entry]) -> PoolExhausted:
    device = entry.request.device
    return PoolExhausted(
        f"{entry.name!r} needs {format_bytes(max(need, entry.nbytes))} on {device}, and what is leased leaves no room "
        f"for it in the pool's budget of {format_bytes(limit)}.\n"
        + _usage_text(device, (other for other in entries if other is not entry)),
        hint="Release models before asking for others, or raise the budget: HFACCEL_POOL_MEMORY='8GiB' or '90%'.",
    )
