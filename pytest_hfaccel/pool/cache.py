"""The model cache of a run: leased models, and values that are computed once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.pool.table import Budget, Entry, Request, ResourceTable, key_text

if TYPE_CHECKING:
    from typing import Self

    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.core.spec import Cell, Device


class Lease:
    """The right to use a loaded model until `release`; the cache keeps the model loaded that long.

    Args:
        loaded: The model.
        end: Tells the cache that the lease has ended.
    """

    def __init__(self, loaded: LoadedModel, end: Callable[[], None]) -> None:
        self._loaded: LoadedModel | None = loaded
        self._end: Callable[[], None] | None = end

    @property
    def loaded(self) -> LoadedModel:
        """The model.

        Raises:
            HfAccelError: The lease has ended.
        """
        if self._loaded is None:
            raise HfAccelError("this lease has been released; acquire the model again")
        return self._loaded

    def release(self) -> None:
        """End the lease. A second call does nothing."""
        end, self._end, self._loaded = self._end, None, None
        if end is not None:
            end()


class ModelCache:
    """Loaded models, one instance per `Cell.key` (model, weights, device, dtype), leased and evicted.

    Safe to use from any number of threads. Loads of different models run side by side; requests for the same model
    load it once; a request for a model that is there never waits for a load.

    Args:
        load: Loads the model of a cell; `None` for a cache that only shares values.
        budget: Bytes that models may hold on a device (`None`: no limit), asked once per device;
            see `pytest_hfaccel.pool.device_budget`. Without it there is no limit.
        estimate: Bytes a cell's model is about to hold, reserved before it is loaded for the first time. From the
            second load of a model on, its measured bytes are known.
        clock: Seconds, for the order in which models were used.
    """

    def __init__(
        self,
        load: Callable[[Cell], LoadedModel] | None = None,
        *,
        budget: Budget | None = None,
        estimate: Callable[[Cell], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._estimate = estimate
        self._table = ResourceTable(budget, clock)
        self._shared = SharedValues()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._table.is_closed

    @property
    def has_loader(self) -> bool:
        """Whether it can lease cells."""
        return self._load is not None

    def serve(self, load: Callable[[Cell], LoadedModel], budget: Budget) -> None:
        """Give a cache that was made without them its loader and budget."""
        self._load = load
        self._table.set_budget(budget)

    def acquire(self, cell: Cell) -> Lease:
        """Lease the model of a cell until `Lease.release`. The same model may be leased several times.

        Raises:
            PoolExhausted: The device's budget does not suffice for what is leased and this; states the usage.
            OutOfMemory: The device's memory did not suffice, also with everything idle evicted; states the usage.
            HfAccelError: What `load` raised, to everybody who waited for this load; a later request loads anew.
        """
        entry = self._table.acquire(self._request(cell))
        return Lease(entry.outcome.result(), lambda: self._table.release(entry))

    @contextmanager
    def lease(self, cell: Cell) -> Iterator[LoadedModel]:
        """Lease the model of a cell for a `with` block; raises what `acquire` raises."""
        lease = self.acquire(cell)
        try:
            yield lease.loaded
        finally:
            lease.release()

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return a value that is computed once and kept until `close`, e.g. a model's reference outputs.

        Other threads that ask meanwhile wait, and get the error if there is one; an error is not kept. `make` may ask
        for other shared values and for leases. Shared values do not count against a budget.
        """
        return self._shared.get(key, make)

    def forget_shared(self, key: Hashable) -> None:
        """Free a shared value; it is computed again when it is asked for again."""
        self._shared.forget(key)

    def evict_idle(self, device: Device | None = None) -> int:
        """Free the models that nobody leases, of one device or of all; return how many."""
        return self._table.evict(lambda entry: device in (None, entry.request.device))

    def idle_bytes(self) -> dict[Device, int]:
        """Bytes of the models that nobody leases, by device."""
        found: Counter[Device] = Counter()
        for device, nbytes in self._table.view(lambda entry: (entry.request.device, entry.is_idle * entry.nbytes)):
            found[device] += nbytes
        return {device: nbytes for device, nbytes in found.items() if nbytes}

    def usage(self) -> list[dict[str, Any]]:
        """What is held now: key, device, bytes, leases and state of each model."""
        return self._table.view(Entry.to_json)

    def stats(self) -> dict[str, Any]:
        """What was done so far, as plain JSON; also after `close`.

        `loads_by_key` says how often each model (`<model> <weights> <device> <dtype>`) was loaded.
        """
        return {**self._table.stats(), "shared": self._shared.stats()}

    def close(self) -> list[str]:
        """Free everything, leased or not. No requests are taken afterwards.

        Returns:
            What could not be freed in order: one text per resource whose `close` raised, now or when it was evicted.
        """
        self._shared.clear()
        return self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _request(self, cell: Cell) -> Request:
        load, estimate = self._load, self._estimate
        if load is None:
            raise ConfigError(
                f"{cell.id}: this pool was made without a loader, so it cannot lease models.",
                hint="Make it with ResourcePool(load), where load(cell) returns a LoadedModel.",
            )
        return Request(
            key=cell.key,
            device=cell.device.eager if cell.device.compiler else cell.device,  # the memory is that of the same device
            make=lambda: load(cell),
            size=lambda loaded: int(loaded.nbytes),
            close=lambda loaded: loaded.close(),
            estimate=lambda: estimate(cell) if estimate else 0,
            most_idle=cell.device.traits.most_idle,
        )


class SharedValues:
    """A dictionary whose values are computed by the first thread that asks, while others that ask wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Hashable, tuple[Future[Any], int]] = {}
        self._computed: Counter[str] = Counter()
        self._reused = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of `key`; `make` is called with no lock held, and may ask for other keys.

        Raises:
            HfAccelError: `make` asked for the very key it is to make.
        """
        me = threading.get_ident()
        with self._lock:
            is_new = key not in self._values
            future, maker = self._values.setdefault(key, (Future(), me))
            self._reused += not is_new
        if is_new:
            return self._make(key, make, future)
        if maker == me and not future.done():
            raise HfAccelError(f"making {key_text(key)!r} asks for {key_text(key)!r} itself")
        return future.result()

    def _make(self, key: Hashable, make: Callable[[], Any], future: Future[Any]) -> Any:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                self._values.pop(key, None)
            future.set_exception(error)
            raise
        with self._lock:
            self._computed[key_text(key)] += 1
        future.set_result(value)
        return value

    def forget(self, key: Hashable) -> None:
        """Forget a value, if it has been computed."""
        with self._lock:
            future, _ = self._values.get(key, (None, 0))
            if future is not None and future.done():
                del self._values[key]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._values.clear()

    def stats(self) -> dict[str, Any]:
        """How often a value was reused, and how often each was computed."""
        with self._lock:
            return {"reused": self._reused, "computed_by_key": dict(sorted(self._computed.items()))}
