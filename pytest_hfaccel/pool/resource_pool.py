"""The pool of loaded models of one process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.pool.devices import Devices
from pytest_hfaccel.pool.entry import Entry, Request
from pytest_hfaccel.pool.error_report import DIRECTORY
from pytest_hfaccel.pool.lease import Lease
from pytest_hfaccel.pool.memory import Budgets
from pytest_hfaccel.pool.resources import NamedResources
from pytest_hfaccel.pool.shared import SharedValues
from pytest_hfaccel.pool.table import ResourceTable

if TYPE_CHECKING:
    from typing import Self

    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.core.spec import Cell, Device

_PATIENCE_SECONDS = 30.0


class ResourcePool(NamedResources):
    """Loaded models, one instance per `Cell.key` (model, weights, device, dtype), leased and evicted.

    What it inherits are resources by name, in the same table and within the same budgets.

    Safe to use from any number of threads. Loads of different models run side by side; requests for the same model
    load it once; a request for a model that is there never waits for a load.

    Args:
        load: Loads the model of a cell; `None` for a pool that only shares values.
        budget: Bytes that models may hold on a device (`None`: no limit), asked once per device;
            see `pytest_hfaccel.pool.device_budget`. Without it there is no limit.
        estimate: Bytes a cell's model is about to hold, reserved before it is loaded for the first time. From the
            second load of a model on, its measured bytes are known.
        patience: Seconds a request waits for other threads to end leases it needs the memory of. It never waits for
            leases of its own thread, nor of threads that are waiting themselves.
        devices: The devices that `get_model` chooses from (default: this machine's).
        error_reports: Directory for reports of models that `get_model` could not bring to a device; `None` for none.
    """

    def __init__(
        self,
        load: Callable[[Cell], LoadedModel] | None = None,
        *,
        budget: Callable[[Device], int | None] | None = None,
        estimate: Callable[[Cell], int] | None = None,
        patience: float = _PATIENCE_SECONDS,
        devices: Devices | None = None,
        error_reports: Path | None = DIRECTORY,
    ) -> None:
        self._load = load
        self._estimate = estimate
        self._budgets = Budgets(budget)
        super().__init__(ResourceTable(self._budgets, patience), devices, error_reports)
        self._shared = SharedValues()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._table.is_closed

    @property
    def has_loader(self) -> bool:
        """Whether it can lease cells."""
        return self._load is not None

    def serve(self, load: Callable[[Cell], LoadedModel], budget: Callable[[Device], int | None]) -> None:
        """Give a pool that was made without them its loader and budget."""
        self._load = load
        self._budgets.replace(budget)

    def acquire(self, cell: Cell) -> Lease:
        """Lease the model of a cell until `Lease.release`. A thread may lease the same model several times.

        Raises:
            PoolExhausted: The device's budget does not suffice for what is leased and this; states the usage.
            OutOfMemory: The device's memory did not suffice, also with everything idle evicted; states the usage.
            HfAccelError: What `load` raised, to everybody who waited for this load; a later request loads anew.
        """
        entry = self._table.acquire(self._request(cell))
        holder = threading.get_ident()
        return Lease(entry.outcome.result(), lambda: self._table.release(entry, holder))

    @contextmanager
    def lease(self, cell: Cell) -> Iterator[LoadedModel]:
        """Lease the model of a cell for a `with` block; raises what `acquire` raises."""
        lease = self.acquire(cell)
        try:
            yield lease.loaded
        finally:
            lease.release()

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return a value that is computed once per pool and kept until `close`, e.g. a model's reference outputs.

        Who asks while it is being computed waits, and gets the error if there is one; an error is not kept. `make` may
        ask for other shared values and for leases. Shared values do not count against a budget.
        """
        return self._shared.get(key, make)

    def forget_shared(self, key: Hashable) -> None:
        """Free a shared value; it is computed again when it is asked for again."""
        self._shared.forget(key)

    def evict_idle(self, device: Device | None = None) -> int:
        """Free the models that nobody leases, of one device or of all; return how many."""
        return self._table.evict_idle(device)

    def usage(self) -> list[dict[str, Any]]:
        """What the pool holds now: key, device, bytes, leases and state of each model."""
        return self._table.view(Entry.to_json)

    def stats(self) -> dict[str, Any]:
        """What the pool has done so far, as plain JSON; also after `close`.

        `loads_by_key` says how often each model (`<model> <weights> <device> <dtype>`) was loaded.
        """
        held: Counter[str] = Counter()
        for entry in self.usage():
            held[entry["device"]] += entry["bytes"]
        return {
            **self._table.stats(),
            "bytes_by_device": dict(sorted(held.items())),
            "budget_by_device": self._budgets.to_json(),
            "shared": self._shared.stats(),
        }

    def close(self) -> list[str]:
        """Free everything, leased or not. The pool takes no requests afterwards.

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
            device=cell.device,
            make=lambda: load(cell),
            size=lambda loaded: int(loaded.nbytes),
            close=lambda loaded: loaded.close(),
            estimate=lambda: estimate(cell) if estimate else 0,
        )
