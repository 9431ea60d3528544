"""The memory around the pool, with a torch made for the test where it takes a GPU."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.compat.model_placement import cuda_memory, memory_statistics
from pytest_hfaccel.hardware.cpu import Memory, read_memory
from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import cpu_only

MB = 2**20
GPU = {"total": 1000 * MB, "allocated": 100 * MB, "reserved": 200 * MB, "free": 600 * MB}


def fake_torch(*gpus: dict[str, int]) -> Any:
    def free(index: int) -> tuple[int, int]:
        assert gpus[index]["reserved"], "this would take memory of a GPU that is not in use"
        return gpus[index]["free"], gpus[index]["total"]

    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_properties=lambda index: SimpleNamespace(name=f"GPU {index}", total_memory=gpus[index]["total"]),
            memory_allocated=lambda index: gpus[index]["allocated"],
            memory_reserved=lambda index: gpus[index]["reserved"],
            mem_get_info=free,
        )
    )


def use(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    if torch is None:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "torch", torch)


def test_gpus_as_torch_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_torch(GPU, {**GPU, "allocated": 0, "reserved": 0}))
    found = cuda_memory()
    assert found["device_count"] == 2
    assert found["devices"][0] == {
        "id": 0,
        "name": "GPU 0",
        "total_mb": 1000.0,
        "allocated_mb": 100.0,
        "reserved_mb": 200.0,
        "free_mb": 600.0,
        "percent_used": 10.0,
        "under_pressure": False,
    }
    assert found["devices"][1]["free_mb"] is None


@pytest.mark.parametrize("torch", [None, fake_torch()])
def test_no_gpus(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    use(monkeypatch, torch)
    assert cuda_memory() == {"device_count": 0, "devices": []}


@pytest.mark.parametrize(
    ("allocated", "available", "expected"),
    [(800, 200, False), (801, 200, True), (0, 199, True)],
)
def test_pressure(monkeypatch: pytest.MonkeyPatch, allocated: int, available: int, expected: bool) -> None:
    use(monkeypatch, fake_torch({**GPU, "allocated": allocated * MB}))
    pool = ResourcePool(devices=cpu_only(), read_memory=lambda: Memory(1000, available))
    assert pool.check_memory_pressure() is expected


def test_main_memory_in_megabytes() -> None:
    assert memory_statistics(Memory(8000 * MB, 2000 * MB)) == {
        "total_mb": 8000.0,
        "available_mb": 2000.0,
        "percent_used": 75.0,
        "under_pressure": False,
    }


def test_the_memory_of_this_machine() -> None:
    memory = read_memory()
    assert 64 * MB < memory.available_bytes <= memory.total_bytes
