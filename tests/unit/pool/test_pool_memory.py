"""Budgets, eviction and out-of-memory, with fake models of a stated size."""

from __future__ import annotations

import gc
import weakref

import pytest

from pytest_hfaccel.core.errors import LoadError, OutOfMemory, PoolExhausted
from pytest_hfaccel.core.spec import Cell, Device
from pytest_hfaccel.pool import ResourcePool
from tests.unit.pool.pool_samples import make_cell, make_pool

MIB = 2**20


class SizedModel:
    """A model of as many MiB as its name ends with: `bert-30`."""

    def __init__(self, cell: Cell) -> None:
        self.nbytes = int(cell.model.name.rpartition("-")[2]) * MIB

    def close(self) -> None:
        pass


def held(pool: ResourcePool) -> list[str]:
    return [entry["key"].split()[0] for entry in pool.usage()]


def touch(pool: ResourcePool, *names: str) -> None:
    for name in names:
        pool.acquire(make_cell(name)).release()


def test_the_longest_idle_model_is_evicted_first() -> None:
    pool = make_pool(SizedModel, budget=lambda _: 100 * MIB)
    touch(pool, "a-40", "b-40", "a-40", "c-40")
    assert held(pool) == ["a-40", "c-40"]
    stats = pool.stats()
    assert stats["evictions"] == 1
    assert stats["bytes_by_device"] == {"cpu": 80 * MIB}
    assert stats["budget_by_device"] == {"cpu": 100 * MIB}


def test_only_as_much_is_evicted_as_is_needed() -> None:
    pool = make_pool(SizedModel, budget=lambda _: 100 * MIB)
    touch(pool, "a-10", "b-30", "c-30", "d-30", "e-35")
    assert held(pool) == ["c-30", "d-30", "e-35"]


def test_of_a_device_whose_models_take_more_than_their_weights_few_stay_idle() -> None:
    pool = make_pool(SizedModel)  # no budget: memory alone would evict none
    in_use = pool.acquire(make_cell("a-1", "wasm"))
    for name in ("b-1", "c-1", "b-1", "d-1"):
        pool.acquire(make_cell(name, "wasm")).release()
    touch(pool, "e-1", "f-1", "g-1")
    assert held(pool) == ["a-1", "b-1", "d-1", "e-1", "f-1", "g-1"], "a is in use, and those on the CPU stay"
    in_use.release()
    assert held(pool)[:2] == ["a-1", "d-1"]
    assert pool.stats()["evictions"] == 2


def test_without_an_estimate_the_measured_bytes_of_the_first_load_are_reserved() -> None:
    seen_while_loading = []

    def load(cell: Cell) -> SizedModel:
        seen_while_loading.append([(entry["key"].split()[0], entry["bytes"] // MIB) for entry in pool.usage()])
        return SizedModel(cell)

    pool = make_pool(load, budget=lambda _: 100 * MIB)
    touch(pool, "a-60", "b-60", "a-60")
    # The first load of b found out its size only afterwards; the second load of a made room beforehand.
    assert seen_while_loading == [[("a-60", 0)], [("a-60", 60), ("b-60", 0)], [("a-60", 60)]]


def test_an_estimate_makes_room_before_the_load() -> None:
    seen = []

    def load(cell: Cell) -> SizedModel:
        seen.append([(entry["key"].split()[0], entry["bytes"] // MIB) for entry in pool.usage()])
        return SizedModel(cell)

    pool = make_pool(load, budget=lambda _: 100 * MIB, estimate=lambda _: 70 * MIB)
    touch(pool, "a-60", "b-60")
    assert seen == [[("a-60", 70)], [("b-60", 70)]]
    assert pool.stats()["bytes_by_device"] == {"cpu": 60 * MIB}


def test_everything_leased_is_an_error_that_states_the_usage() -> None:
    pool = make_pool(SizedModel, budget=lambda _: 100 * MIB, estimate=lambda _: 40 * MIB)
    with pool.lease(make_cell("a-40")), pool.lease(make_cell("b-50")):
        with pytest.raises(PoolExhausted) as caught:
            pool.acquire(make_cell("c-40"))
        assert held(pool) == ["a-40", "b-50"]
    assert str(caught.value) == (
        "'c-40 tiny cpu fp32' needs 40.0 MiB on cpu, and what is leased leaves no room for it in the pool's budget of "
        "100.0 MiB.\n"
        "On cpu:\n"
        "  a-40 tiny cpu fp32: 40.0 MiB, ready, 1 lease(s)\n"
        "  b-50 tiny cpu fp32: 50.0 MiB, ready, 1 lease(s)\n"
        "Release models before asking for others, or raise the budget: HFACCEL_POOL_MEMORY='8GiB' or '90%'."
    )
    assert pool.acquire(make_cell("c-40")).loaded.nbytes == 40 * MIB


def test_a_model_found_too_large_after_loading_is_freed() -> None:
    closed = []

    class Model(SizedModel):
        def close(self) -> None:
            closed.append(self.nbytes // MIB)

    pool = make_pool(Model, budget=lambda _: 100 * MIB)
    touch(pool, "a-40")
    with pytest.raises(PoolExhausted, match=r"needs 200\.0 MiB"):
        pool.acquire(make_cell("b-200"))
    assert closed == [200]
    assert held(pool) == ["a-40"]  # evicting it would not have helped


def test_other_devices_are_left_alone() -> None:
    pool = make_pool(SizedModel, budget=lambda device: (100 if device.kind == "cpu" else 50) * MIB)
    pool.acquire(make_cell("a-40", "cuda:0")).release()
    touch(pool, "b-60", "c-60")
    assert held(pool) == ["a-40", "c-60"]
    with pytest.raises(PoolExhausted, match="on cuda:0"):
        pool.acquire(make_cell("d-60", "cuda:0"))


def test_the_budget_of_a_device_is_asked_for_once_and_only_if_used() -> None:
    asked = []

    def budget(device: Device) -> int:
        asked.append(device.id)
        return 100 * MIB

    pool = make_pool(SizedModel, budget=budget)
    touch(pool, "a-40", "b-40", "c-40")
    assert asked == ["cpu"]


class FlakyLoader:
    """Runs out of memory as often as told, and lets the test see whether a failed attempt's memory is let go."""

    def __init__(self, failures: int, error: type[Exception] = OutOfMemory) -> None:
        self.failures = failures
        self.error = error
        self.leftovers: list[weakref.ref[SizedModel]] = []
        self.alive_at_retry: list[bool] = []

    def __call__(self, cell: Cell) -> SizedModel:
        if not cell.model.name.startswith("big"):
            return SizedModel(cell)
        self.alive_at_retry += [ref() is not None for ref in self.leftovers]
        partly_loaded = SizedModel(cell)
        self.leftovers.append(weakref.ref(partly_loaded))
        if len(self.leftovers) <= self.failures:
            raise self.error("24 MiB could not be allocated")
        return partly_loaded


@pytest.mark.parametrize("error", [OutOfMemory, MemoryError])
def test_out_of_memory_evicts_what_is_idle_and_tries_once_more(error: type[Exception]) -> None:
    loader = FlakyLoader(1, error)
    pool = make_pool(loader)
    touch(pool, "a-10", "b-10")
    pool.acquire(make_cell("c-10", "cuda:0")).release()
    leased = pool.acquire(make_cell("d-10"))
    touch(pool, "big-50")
    assert held(pool) == ["c-10", "d-10", "big-50"]
    assert loader.alive_at_retry == [False]
    stats = pool.stats()
    assert (stats["oom_retries"], stats["evictions"], stats["loads_by_key"]["big-50 tiny cpu fp32"]) == (1, 2, 1)
    leased.release()


def test_out_of_memory_twice_is_an_error_that_states_the_usage() -> None:
    loader = FlakyLoader(2)
    pool = make_pool(loader)
    touch(pool, "a-10")
    leased = pool.acquire(make_cell("b-10"))
    with pytest.raises(OutOfMemory) as caught:
        pool.acquire(make_cell("big-50"))
    assert str(caught.value) == (
        "24 MiB could not be allocated\n"
        "Tried twice, the second time with all idle models evicted. On cpu:\n"
        "  b-10 tiny cpu fp32: 10.0 MiB, ready, 1 lease(s)"
    )
    assert len(loader.leftovers) == 2
    gc.collect()
    assert [ref() for ref in loader.leftovers] == [None, None]  # also while the error is being held
    assert held(pool) == ["b-10"]
    leased.release()


def test_a_failed_load_gives_its_reservation_back() -> None:
    fails = [True]

    def load(cell: Cell) -> SizedModel:
        if fails:
            fails.clear()
            raise LoadError("no such layer")
        return SizedModel(cell)

    pool = make_pool(load, budget=lambda _: 100 * MIB, estimate=lambda _: 80 * MIB)
    with pytest.raises(LoadError):
        pool.acquire(make_cell("a-80"))
    assert pool.stats()["bytes_by_device"] == {}
    touch(pool, "b-80")
    assert held(pool) == ["b-80"]


def test_an_eviction_whose_close_raises_is_reported_and_does_not_hurt_the_request() -> None:
    class Model(SizedModel):
        def close(self) -> None:
            raise RuntimeError("driver is gone")

    pool = make_pool(Model, budget=lambda _: 100 * MIB)
    touch(pool, "a-60", "b-60")
    assert held(pool) == ["b-60"]
    assert pool.stats()["close_errors"] == ["a-60 tiny cpu fp32: RuntimeError: driver is gone"]
