"""Leases, hits, loads and errors of the pool, with fake models."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, HfAccelError, LoadError
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.pool import ResourcePool
from tests.unit.pool.pool_samples import make_cell, make_pool

LIMIT = 10.0  # seconds; what takes longer is a deadlock


@dataclass
class FakeModel:
    name: str
    nbytes: int = 100
    closed: bool = False
    problem: str = ""

    def close(self) -> None:
        self.closed = True
        if self.problem:
            raise RuntimeError(self.problem)


@dataclass
class Loader:
    """Loads fake models and remembers them; a model's load waits for its gate, where it has one."""

    made: list[FakeModel] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    started: dict[str, threading.Event] = field(default_factory=dict)

    def __call__(self, cell: Cell) -> FakeModel:
        name = cell.model.name
        if name in self.started:
            self.started[name].set()
        if name in self.gates:
            assert self.gates[name].wait(LIMIT)
        model = FakeModel(cell.id)
        self.made.append(model)
        return model

    def gate(self, name: str) -> threading.Event:
        self.started[name] = threading.Event()
        self.gates[name] = threading.Event()
        return self.gates[name]


def test_a_model_is_loaded_once_and_stays_loaded() -> None:
    loader = Loader()
    pool = make_pool(loader)
    with pool.lease(make_cell("bert")) as first:
        pass
    with pool.lease(make_cell("bert")) as second:
        assert second is first
        assert not loader.made[0].closed
    stats = pool.stats()
    assert (stats["requests"], stats["hits"], stats["misses"], stats["loads"]) == (2, 1, 1, 1)
    assert stats["loads_by_key"] == {"bert tiny cpu fp32": 1}


@pytest.mark.parametrize("other", [make_cell("gpt2"), make_cell("bert", "cuda:0"), make_cell("bert", dtype="bf16")])
def test_model_device_and_dtype_have_instances_of_their_own(other: Cell) -> None:
    pool = make_pool(Loader())
    with pool.lease(make_cell("bert")) as one, pool.lease(other) as two:
        assert one is not two


def test_a_lease_within_a_lease_of_the_same_model() -> None:
    loader = Loader()
    pool = make_pool(loader, budget=lambda _: 100)
    with pool.lease(make_cell("bert")) as outer:
        with pool.lease(make_cell("bert")) as inner:
            assert inner is outer
        assert pool.usage()[0]["leases"] == 1
        assert pool.evict_idle() == 0
    assert pool.evict_idle() == 1
    assert [model.closed for model in loader.made] == [True]


def test_a_released_lease_is_of_no_use_and_counts_once() -> None:
    pool = make_pool(Loader())
    cell = make_cell("bert")
    kept, released = pool.acquire(cell), pool.acquire(cell)
    released.release()
    released.release()
    assert pool.usage()[0]["leases"] == 1
    with pytest.raises(HfAccelError, match="released"):
        _ = released.loaded
    loaded: Any = kept.loaded
    assert not loaded.closed


def test_concurrent_requests_load_once() -> None:
    loader = Loader()
    gate = loader.gate("bert")
    pool = make_pool(loader)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(lambda: pool.acquire(make_cell("bert")).loaded) for _ in range(8)]
        assert loader.started["bert"].wait(LIMIT)
        gate.set()
        assert len({id(future.result(LIMIT)) for future in asked}) == 1
    assert len(loader.made) == 1


def test_loads_of_different_models_run_side_by_side() -> None:
    loader = Loader()
    loader.gate("bert")
    loader.gate("gpt2")
    pool = make_pool(loader)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(pool.acquire, make_cell(name)) for name in ("bert", "gpt2")]
        # Both are inside their load at the same time, before either may finish.
        assert all(event.wait(LIMIT) for event in loader.started.values())
        for gate in loader.gates.values():
            gate.set()
        loaded: list[Any] = [future.result(LIMIT).loaded for future in asked]
    assert [model.name for model in loaded] == ["bert-cpu-fp32", "gpt2-cpu-fp32"]


def test_a_hit_does_not_wait_for_a_load() -> None:
    loader = Loader()
    pool = make_pool(loader, budget=lambda _: 1000)
    with pool.lease(make_cell("bert")):
        pass
    gate = loader.gate("gpt2")
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(pool.acquire, make_cell("gpt2"))
        assert loader.started["gpt2"].wait(LIMIT)
        with pool.lease(make_cell("bert")):  # would hang if it waited: the gate is still shut
            assert not slow.done()
        assert pool.stats()["hits"] == 1
        gate.set()
        slow.result(LIMIT)


def test_a_hit_does_not_wait_for_an_eviction() -> None:
    closing, may_close = threading.Event(), threading.Event()

    class SlowToClose(FakeModel):
        def close(self) -> None:
            closing.set()
            assert may_close.wait(LIMIT)

    pool = make_pool(lambda cell: SlowToClose(cell.id), budget=lambda _: 200, estimate=lambda _: 100)
    pool.acquire(make_cell("old")).release()
    pool.acquire(make_cell("bert")).release()
    with ThreadPoolExecutor(1) as threads:
        evicting = threads.submit(pool.acquire, make_cell("gpt2"))
        assert closing.wait(LIMIT)
        with pool.lease(make_cell("bert")):
            assert not evicting.done()
        may_close.set()
        evicting.result(LIMIT)


def test_a_failed_load_reaches_all_who_waited_and_is_tried_again_later() -> None:
    may_fail, started = threading.Event(), threading.Event()
    attempts = []

    def load(cell: Cell) -> FakeModel:
        attempts.append(cell)
        if len(attempts) > 1:
            return FakeModel(cell.id)
        started.set()
        assert may_fail.wait(LIMIT)
        raise LoadError("broken config")

    pool = make_pool(load, budget=lambda _: 100, estimate=lambda _: 100)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(pool.acquire, make_cell("bert")) for _ in range(3)]
        assert started.wait(LIMIT)
        while pool.stats()["requests"] < 3:
            pass
        may_fail.set()
        errors = [future.exception(LIMIT) for future in asked]
    assert [str(error) for error in errors] == ["broken config"] * 3
    assert pool.usage() == []  # neither the entry nor its reservation is left
    loaded: Any = pool.acquire(make_cell("bert")).loaded
    assert loaded.name == "bert-cpu-fp32"
    stats = pool.stats()
    assert (stats["misses"], stats["loads"], stats["failures"]) == (2, 1, 1)


def test_a_load_that_asks_for_itself_is_refused() -> None:
    def load(cell: Cell) -> Any:
        return pool.acquire(cell).loaded

    pool = make_pool(load)
    with pytest.raises(HfAccelError, match="asks for 'bert tiny cpu fp32' itself"):
        pool.acquire(make_cell("bert"))


def test_close_frees_everything_also_when_a_close_raises() -> None:
    models = {"bad": FakeModel("bad", problem="driver is gone"), "good": FakeModel("good"), "leased": FakeModel("x")}
    pool = make_pool(lambda cell: models[cell.model.name])
    pool.acquire(make_cell("bad")).release()
    pool.acquire(make_cell("good")).release()
    lease = pool.acquire(make_cell("leased"))
    assert pool.close() == ["bad tiny cpu fp32: RuntimeError: driver is gone"]
    assert all(model.closed for model in models.values())
    assert pool.usage() == []
    assert pool.stats()["close_errors"] == ["bad tiny cpu fp32: RuntimeError: driver is gone"]
    lease.release()
    with pytest.raises(HfAccelError, match="closed"):
        pool.acquire(make_cell("good"))


def test_a_model_that_was_loading_when_the_pool_closed_is_freed() -> None:
    loader = Loader()
    gate = loader.gate("bert")
    pool = make_pool(loader)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(pool.acquire, make_cell("bert"))
        assert loader.started["bert"].wait(LIMIT)
        pool.close()
        gate.set()
        with pytest.raises(HfAccelError, match="closed while 'bert tiny cpu fp32' was loading"):
            asked.result(LIMIT)
    assert [model.closed for model in loader.made] == [True]


def test_a_pool_without_a_loader_says_so() -> None:
    with pytest.raises(ConfigError, match="without a loader"):
        ResourcePool().acquire(make_cell("bert"))
