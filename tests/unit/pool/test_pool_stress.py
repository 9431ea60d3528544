"""The pool under many threads: no double load, no deadlock, and the numbers add up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_hfaccel.core.errors import LoadError, PoolExhausted
from pytest_hfaccel.core.spec import Cell
from tests.unit.pool.pool_samples import make_cell, make_pool

LIMIT = 60.0  # seconds; what takes longer is a deadlock
THREADS, REQUESTS, KEYS = 16, 200, 12
SIZE = 10
BUDGET = 5 * SIZE


class World:
    """Makes models, and objects to two of one key and to more bytes than the budget at any time."""

    def __init__(self, seed: int, failing: float = 0.0) -> None:
        self.lock = threading.Lock()
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.alive: Counter[str] = Counter()
        self.loads: Counter[str] = Counter()
        self.objections: list[str] = []
        self.failing = failing
        self.failures = 0

    def sleep(self) -> float:
        with self.lock:
            return self.random.uniform(0, 0.004)

    def load(self, cell: Cell) -> Model:
        time.sleep(self.sleep())
        with self.lock:
            if self.random.random() < self.failing:
                self.failures += 1
                raise LoadError("bad luck")
            name = cell.model.name
            self.alive[name] += 1
            self.loads[name] += 1
            if self.alive[name] > 1:
                self.objections.append(f"{name} is loaded twice")
            if sum(self.alive.values()) * SIZE > BUDGET:
                self.objections.append(f"{sum(self.alive.values())} models are loaded")
            return Model(self, name)


class Model:
    nbytes = SIZE

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.closed = False

    def close(self) -> None:
        time.sleep(self.world.sleep())
        with self.world.lock:
            self.closed = True
            self.world.alive[self.name] -= 1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_many_threads_few_models_little_memory(seed: int, failing: float) -> None:
    world = World(seed, failing)
    pool = make_pool(world.load, budget=lambda _: BUDGET, estimate=lambda _: SIZE)
    wanted = [world.random.randrange(KEYS) for _ in range(REQUESTS)]

    def ask(index: int) -> str:
        model: Any
        try:
            with pool.lease(make_cell(f"model-{index}")) as model:
                assert not model.closed
                time.sleep(world.sleep())
                assert not model.closed
        except LoadError:
            return "failed"
        except PoolExhausted:
            return "refused"  # the others lease all there is room for
        return "served"

    threads = ThreadPoolExecutor(THREADS)
    asked = [threads.submit(ask, index) for index in wanted]
    outcomes = Counter(future.result(LIMIT) for future in asked)
    threads.shutdown()

    assert world.objections == []
    stats = pool.stats()
    assert stats["requests"] == REQUESTS == stats["hits"] + stats["misses"] == outcomes.total()
    assert stats["misses"] == stats["loads"] + stats["failures"]
    assert stats["loads"] == world.loads.total()
    assert world.failures <= stats["failures"] <= world.failures + outcomes["refused"]
    assert outcomes["served"] > 0
    assert stats["loads_by_key"] == {f"{name} tiny cpu fp32": n for name, n in sorted(world.loads.items())}
    assert stats["evictions"] == stats["loads"] - len(pool.usage()) > 0
    assert outcomes["failed"] >= world.failures
    assert stats["peak_bytes_by_device"]["cpu"] <= BUDGET
    assert stats["bytes_by_device"] == {"cpu": SIZE * len(pool.usage())}
    assert all(entry["leases"] == 0 for entry in pool.usage())

    assert pool.close() == []
    assert world.alive.total() == 0
