"""Loaded models under lease: one instance per key, within a memory budget per device.

    pool = ResourcePool(load, budget=device_budget("8GiB"))
    with pool.lease(cell) as loaded:
        loaded.forward(inputs)

Nothing here knows a runtime: how a model is loaded, measured and freed is the `LoadedModel`'s and the caller's.
"""

from __future__ import annotations

from pytest_hfaccel.pool.budget import device_budget, parse_budget
from pytest_hfaccel.pool.lease import Lease
from pytest_hfaccel.pool.resource_pool import ResourcePool

__all__ = ["Lease", "ResourcePool", "device_budget", "parse_budget"]
