"""The statistics of the ResourcePool guide: what is held, how often it was found, and the memory around it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pytest_hfaccel.pool.entry import Entry, State
from pytest_hfaccel.pool.held import MODEL, RESOURCE, TOKENIZER, kind_of
from pytest_hfaccel.pool.low_memory import MB, read_main_memory
from pytest_hfaccel.pool.placement import loaded_torch
from pytest_hfaccel.pool.table import ResourceTable

_PRESSURE_PERCENT = 80.0
"""Share of an accelerator's memory allocated above which it is under pressure; from the ResourcePool guide."""


def pool_statistics(table: ResourceTable, *, low_memory: bool) -> dict[str, Any]:
    """Return the guide's statistics as plain JSON.

    Args:
        table: What the pool holds.
        low_memory: Whether low-memory mode is on.
    """
    counted = table.stats()
    held = [found for found in table.view(_kind_and_bytes) if found is not None]
    kinds = Counter(kind for kind, _ in held)
    nbytes = sum(size for _, size in held)
    requests = counted["requests"]
    return {
        "hits": counted["hits"],
        "misses": counted["misses"],
        "total_requests": requests,
        "hit_ratio": counted["hits"] / requests if requests else 0.0,
        "memory_usage": nbytes,
        "memory_usage_mb": nbytes / MB,
        "cached_resources": kinds[RESOURCE],
        "cached_models": kinds[MODEL],
        "cached_tokenizers": kinds[TOKENIZER],
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "low_memory_mode": low_memory,
        "system_memory": read_main_memory().to_json(),
        "cuda_memory": cuda_memory(),
    }


def cuda_memory() -> dict[str, Any]:
    """Return the memory of the GPUs as torch's CUDA interface sees them; ROCm's are among them.

    Without a GPU, and while nothing in this process has imported torch, there are no devices. `free_mb` counts what
    other processes have taken; it is `None` for a GPU this process does not use, because asking would take hundreds of
    megabytes of it.
    """
    torch = loaded_torch()
    count = int(torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else 0
    return {"device_count": count, "devices": [_gpu(torch, index) for index in range(count)]}


def is_any_under_pressure() -> bool:
    """Whether main memory, or a GPU this process uses, is under pressure."""
    return read_main_memory().is_scarce or any(gpu["under_pressure"] for gpu in cuda_memory()["devices"])


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    allocated, reserved = torch.cuda.memory_allocated(index), torch.cuda.memory_reserved(index)
    percent = 100 * allocated / properties.total_memory
    return {
        "id": index,
        "name": properties.name,
        "total_mb": properties.total_memory / MB,
        "allocated_mb": allocated / MB,
        "reserved_mb": reserved / MB,
        "free_mb": torch.cuda.mem_get_info(index)[0] / MB if reserved else None,
        "percent_used": round(percent, 1),
        "under_pressure": percent > _PRESSURE_PERCENT,
    }


def _kind_and_bytes(entry: Entry) -> tuple[str, int] | None:
    """What an entry counts as, and its bytes; `None` for one that is still being made."""
    return None if entry.state is State.LOADING else (kind_of(entry), entry.nbytes)
