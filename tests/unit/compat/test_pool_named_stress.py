"""`get_model` under many threads: no double load, no deadlock, and the statistics add up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import cpu_only

LIMIT = 60.0  # seconds; what takes longer is a deadlock
THREADS, REQUESTS, KEYS = 16, 200, 12
SIZE = 10
BUDGET = 5 * SIZE


class World:
    """Constructs models, and objects to two of one name at a time."""

    def __init__(self, seed: int, failing: float) -> None:
        self.lock = threading.Lock()
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.failing = failing
        self.constructing: Counter[int] = Counter()
        self.calls = self.failures = 0
        self.objections: list[str] = []

    def construct(self, index: int) -> Model:
        with self.lock:
            self.calls += 1
            self.constructing[index] += 1
            if self.constructing[index] > 1:
                self.objections.append(f"{index} is constructed twice at a time")
            seconds, fails = self.random.uniform(0, 0.004), self.random.random() < self.failing
            self.failures += fails
        time.sleep(seconds)
        with self.lock:
            self.constructing[index] -= 1
        if fails:
            raise ValueError("bad luck")
        return Model(index)


class Model:
    nbytes = SIZE

    def __init__(self, index: int) -> None:
        self.index = index


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_many_threads_few_models_little_memory(seed: int, failing: float) -> None:
    world = World(seed, failing)
    pool = ResourcePool(budget=lambda _: BUDGET, devices=cpu_only(), error_reports=None)
    wanted = [world.random.randrange(KEYS) for _ in range(REQUESTS)]

    def ask(position: int, index: int) -> str:
        if position % 25 == 24:
            pool.cleanup_unused_resources(0)
        try:
            model = pool.get_model("bert", f"model-{index}", lambda: world.construct(index))
        except ValueError:
            return "failed"
        assert model.index == index
        return "served"

    with ThreadPoolExecutor(THREADS) as threads:
        asked = [threads.submit(ask, position, index) for position, index in enumerate(wanted)]
        outcomes = Counter(future.result(LIMIT) for future in asked)

    assert world.objections == []
    counted, stats = pool.stats(), pool.get_stats()
    assert stats["total_requests"] == REQUESTS == stats["hits"] + stats["misses"] == outcomes.total()
    assert stats["hit_ratio"] == stats["hits"] / REQUESTS
    assert stats["misses"] == world.calls == counted["loads"] + counted["failures"]
    assert counted["failures"] == world.failures
    assert counted["evictions"] == counted["loads"] - stats["cached_models"] > 0
    assert stats["memory_usage"] == SIZE * stats["cached_models"]
    assert stats["memory_usage"] <= BUDGET


def test_models_of_unknown_size_made_side_by_side_do_not_wait_for_each_other() -> None:
    pool = ResourcePool(budget=lambda _: BUDGET, devices=cpu_only(), error_reports=None)
    all_here = threading.Barrier(THREADS, timeout=LIMIT)

    def construct(index: int) -> Model:
        all_here.wait()  # nobody's size is known before everybody has been let in
        return Model(index)

    with ThreadPoolExecutor(THREADS) as threads:
        asked = [
            threads.submit(pool.get_model, "bert", f"model-{index}", partial(construct, index))
            for index in range(THREADS)
        ]
        assert [future.result(LIMIT).index for future in asked] == list(range(THREADS))
    assert pool.get_stats()["memory_usage"] <= BUDGET
