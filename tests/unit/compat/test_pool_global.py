"""One pool for the process, and the run's pool while there is a run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.pool import get_global_resource_pool, open_run_pool
from pytest_hfaccel.pool.budget import device_budget


@pytest.fixture(autouse=True)
def _no_pool_left() -> Iterator[None]:
    before = get_global_resource_pool()
    before.close()
    yield
    while (pool := get_global_resource_pool()).has_loader:
        pool.close()
    pool.close()


def load(_: Any) -> Any:
    raise AssertionError("nothing is loaded here")


def test_everybody_gets_the_same_pool() -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(get_global_resource_pool) for _ in range(8)]
        assert len({id(future.result(10)) for future in asked}) == 1


def test_a_closed_pool_is_replaced() -> None:
    pool = get_global_resource_pool()
    pool.close()
    assert get_global_resource_pool() is not pool


def test_the_runs_pool_is_the_processs() -> None:
    pool = open_run_pool(load, device_budget("1GiB"))
    assert get_global_resource_pool() is pool
    pool.close()
    assert get_global_resource_pool() is not pool


def test_a_pool_asked_for_before_the_run_serves_the_run() -> None:
    pool = get_global_resource_pool()
    pool.get_resource("a", "b", object)
    assert open_run_pool(load, device_budget("1GiB")) is pool
    assert pool.has_loader
    pool.get_resource("a", "c", object)
    assert pool.stats()["budget_by_device"] == {"cpu": 2**30}


def test_a_run_within_a_run_has_a_pool_of_its_own() -> None:
    outer = open_run_pool(load, device_budget())
    inner = open_run_pool(load, device_budget())
    assert inner is not outer
    assert get_global_resource_pool() is inner
    inner.close()
    assert get_global_resource_pool() is outer


def test_the_budget_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFACCEL_POOL_MEMORY", "3GiB")
    pool = get_global_resource_pool()
    pool.get_resource("a", "b", object)
    assert pool.stats()["budget_by_device"] == {Device("cpu").id: 3 * 2**30}
    pool.close()
    monkeypatch.setenv("HFACCEL_POOL_MEMORY", "lots")
    with pytest.raises(ConfigError, match="HFACCEL_POOL_MEMORY: 'lots'"):
        get_global_resource_pool()


def test_a_runner_opens_the_processs_pool() -> None:
    from pytest_hfaccel.core.config import RunConfig

    runner = Runner(RunConfig.from_values({}))
    assert get_global_resource_pool() is runner.pool
    runner.close()
