"""Loaded models under lease: one instance per key, within a memory budget per device.

    pool = ResourcePool(load, budget=device_budget("8GiB"))
    with pool.lease(cell) as loaded:
        loaded.forward(inputs)

Nothing here knows a runtime: how a model is loaded, measured and freed is the `LoadedModel`'s and the caller's. The
same pool keeps objects by name; `docs/resource_pool.md` is its guide:

    pool = get_global_resource_pool()
    model = pool.get_model("embedding", "bert-base-uncased", constructor=create_model)
"""

from __future__ import annotations

from pytest_hfaccel.pool.budget import device_budget, parse_budget
from pytest_hfaccel.pool.global_pool import get_global_resource_pool, open_run_pool
from pytest_hfaccel.pool.lease import Lease
from pytest_hfaccel.pool.preferences import HardwarePreferences
from pytest_hfaccel.pool.resource_pool import ResourcePool

__all__ = [
    "HardwarePreferences",
    "Lease",
    "ResourcePool",
    "device_budget",
    "get_global_resource_pool",
    "open_run_pool",
    "parse_budget",
]
