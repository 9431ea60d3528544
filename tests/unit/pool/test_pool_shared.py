"""Values computed once and shared."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_hfaccel.core.errors import HfAccelError, LoadError
from pytest_hfaccel.pool import ResourcePool

LIMIT = 10.0


def test_a_value_is_computed_once_also_for_concurrent_askers() -> None:
    pool = ResourcePool()
    started, go_on = threading.Event(), threading.Event()

    def make() -> object:
        started.set()
        assert go_on.wait(LIMIT)
        return object()

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(pool.shared, ("reference", "bert"), make) for _ in range(4)]
        assert started.wait(LIMIT)
        assert pool.shared("another", lambda: 7) == 7  # does not wait for the first
        go_on.set()
        values = {id(future.result(LIMIT)) for future in asked}
    assert len(values) == 1
    assert pool.stats()["shared"] == {"reused": 3, "computed_by_key": {"another": 1, "reference bert": 1}}


def test_an_error_reaches_all_who_waited_and_is_not_kept() -> None:
    pool = ResourcePool()
    started, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        started.set()
        assert go_on.wait(LIMIT)
        raise LoadError("no reference")

    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(pool.shared, "key", fail) for _ in range(3)]
        assert started.wait(LIMIT)
        while pool.stats()["shared"]["reused"] < 2:
            pass
        go_on.set()
        errors = [future.exception(LIMIT) for future in asked]
    assert errors[0] is not None
    assert all(error is errors[0] for error in errors)
    assert pool.shared("key", lambda: 1) == 1


def test_a_value_may_need_another_but_not_itself() -> None:
    pool = ResourcePool()
    assert pool.shared("sum", lambda: pool.shared("summand", lambda: 1) + 1) == 2
    with pytest.raises(HfAccelError, match="making 'loop' asks for 'loop' itself"):
        pool.shared("loop", lambda: pool.shared("loop", lambda: 1))


def test_close_forgets_values() -> None:
    pool = ResourcePool()
    pool.shared("key", lambda: 1)
    pool.close()
    assert pool.shared("key", lambda: 2) == 2


def test_one_value_can_be_forgotten() -> None:
    pool = ResourcePool()
    pool.shared("key", lambda: 1)
    pool.forget_shared("key")
    pool.forget_shared("never there")
    assert pool.shared("key", lambda: 2) == 2
