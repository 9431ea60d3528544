"""The model cache of a run: loaded models under lease, one instance per key, within a memory budget per device.

    cache = ModelCache(load, budget=device_budget("8GiB"))
    with cache.lease(cell) as loaded:
        loaded.forward(inputs)

Nothing here knows a runtime: how a model is loaded, measured and freed is the `LoadedModel`'s and the caller's. The
run's cache is a `ResourcePool`, which also keeps objects by name (`docs/resource_pool.md`); it is in
`pytest_hfaccel.compat.resource_pool`, and importable from here:

    pool = get_global_resource_pool()
    model = pool.get_model("embedding", "bert-base-uncased", constructor=create_model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.pool.budget import device_budget, parse_budget
from pytest_hfaccel.pool.cache import Lease, ModelCache

if TYPE_CHECKING:
    from pytest_hfaccel.compat.device_choice import HardwarePreferences
    from pytest_hfaccel.compat.resource_pool import ResourcePool, get_global_resource_pool, open_run_pool

_COMPAT = {
    "HardwarePreferences": "device_choice",
    "ResourcePool": "resource_pool",
    "get_global_resource_pool": "resource_pool",
    "open_run_pool": "resource_pool",
}

__all__ = [
    "HardwarePreferences",
    "Lease",
    "ModelCache",
    "ResourcePool",
    "device_budget",
    "get_global_resource_pool",
    "open_run_pool",
    "parse_budget",
]


def __getattr__(name: str) -> Any:
    if name not in _COMPAT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pytest_hfaccel.compat.{_COMPAT[name]}"), name)
