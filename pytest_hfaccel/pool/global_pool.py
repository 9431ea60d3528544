"""The pool of the process: the one that a run of tests leases its models from, while there is one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_hfaccel.pool.budget import device_budget
from pytest_hfaccel.pool.resource_pool import ResourcePool

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.core.spec import Cell, Device

_lock = threading.Lock()
_pools: list[ResourcePool] = []
"""The pools of the process, innermost last: a run within a run (pytester) has one of its own."""


def get_global_resource_pool() -> ResourcePool:
    """Return the pool of this process, the same to everybody; made at the first call.

    In a run of tests it is the run's pool, the `resource_pool` fixture. Its budget is `HFACCEL_POOL_MEMORY`.

    Raises:
        ConfigError: `HFACCEL_POOL_MEMORY` is not a budget.
    """
    with _lock:
        return _innermost() or _push(ResourcePool(budget=device_budget(os.environ.get("HFACCEL_POOL_MEMORY", ""))))


def open_run_pool(load: Callable[[Cell], LoadedModel], budget: Callable[[Device], int | None]) -> ResourcePool:
    """Return the pool for a run of tests, which is the process's until it is closed.

    Somebody may have asked for the process's pool before, e.g. in a `conftest.py`: the run then uses that one.

    Args:
        load: Loads the model of a cell.
        budget: Bytes that models may hold on a device; `None`: no limit.
    """
    with _lock:
        pool = _innermost()
        if pool is None or pool.has_loader:
            return _push(ResourcePool(load, budget=budget))
        pool.serve(load, budget)
        return pool


def _innermost() -> ResourcePool | None:
    _pools[:] = [pool for pool in _pools if not pool.is_closed]
    return _pools[-1] if _pools else None


def _push(pool: ResourcePool) -> ResourcePool:
    _pools.append(pool)
    return pool
