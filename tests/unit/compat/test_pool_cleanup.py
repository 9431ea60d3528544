"""When unused resources are dropped: the ages of the ResourcePool guide, with a clock made for the test."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.compat.model_placement import ENVIRONMENT
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.hardware.cpu import Memory
from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import GIB, cpu_only

MB = 2**20


class Thing:
    def __init__(self, nbytes: int = 0) -> None:
        self.nbytes = nbytes
        self.closed = False

    def close(self) -> None:
        self.closed = True


def load_thing(_: Cell) -> Any:
    """Return what has as much of a `LoadedModel` as the pool uses."""
    return Thing(1)


class World:
    """A pool, the time, and the main memory."""

    def __init__(self) -> None:
        self.minutes = 0.0
        self.available = 64 * GIB
        self.pool = ResourcePool(
            load_thing,
            devices=cpu_only(),
            error_reports=None,
            clock=lambda: 1000 + 60 * self.minutes,
            read_memory=lambda: Memory(100 * GIB, self.available),
        )

    def held(self) -> set[str]:
        return {entry["key"] for entry in self.pool.usage()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return World()


def fill(world: World) -> None:
    """A small model, a large one, a tokenizer and a large resource, all unused from now on."""
    world.pool.get_model("bert", "small", lambda: Thing(100 * MB))
    world.pool.get_model("bert", "large", lambda: Thing(100 * MB + 1))
    world.pool.get_tokenizer("bert", "small", Thing)
    world.pool.get_resource("table", "large", lambda: Thing(200 * MB))


SMALL = {"model bert small cpu", "tokenizer bert small", "resource table large"}
LARGE = {"model bert large cpu"}


@pytest.mark.parametrize(
    ("minutes", "low_memory", "available", "left"),
    [
        (14, False, 64 * GIB, SMALL | LARGE),
        (15, False, 64 * GIB, SMALL),
        (29, False, 64 * GIB, SMALL),
        (30, False, 64 * GIB, set()),
        (4, True, 64 * GIB, SMALL | LARGE),
        (5, True, 64 * GIB, SMALL),
        (10, True, 64 * GIB, set()),
        (2, False, 19 * GIB, SMALL | LARGE),
        (2.5, False, 19 * GIB, SMALL),
        (5, False, 19 * GIB, set()),
        (5, True, 19 * GIB, set()),
    ],
)
def test_ages_by_size_mode_and_memory(
    world: World, minutes: float, low_memory: bool, available: int, left: set[str]
) -> None:
    fill(world)
    world.pool.enable_low_memory_mode(low_memory)
    world.minutes, world.available = minutes, available
    assert world.pool.cleanup_unused_resources() == 4 - len(left)
    assert world.held() == left


def test_the_callers_age_counts_where_it_is_shorter(world: World) -> None:
    fill(world)
    world.minutes = 4
    assert world.pool.cleanup_unused_resources(max_age_minutes=4) == 4
    fill(world)
    assert world.pool.cleanup_unused_resources(0) == 4


def test_a_request_makes_a_resource_young_again(world: World) -> None:
    fill(world)
    world.minutes = 20
    world.pool.get_tokenizer("bert", "small", Thing)
    world.minutes = 35
    world.pool.cleanup_unused_resources()
    assert world.held() == {"tokenizer bert small"}


def test_leased_cells_stay(world: World) -> None:
    spec = ModelSpec(name="gpt2", architecture="GPT2LMHeadModel", task="text-generation")
    cell = Cell(spec, Device("cpu"), "fp32", WeightsChoice(Weights.TINY, "test"))
    loaded: Any
    with world.pool.lease(cell) as loaded:
        assert world.pool.cleanup_unused_resources(0) == 0
        assert not loaded.closed
    assert world.pool.cleanup_unused_resources(0) == 1
    assert loaded.closed


def test_a_model_may_ask_for_low_memory_alone(world: World) -> None:
    world.pool.get_model("bert", "frugal", Thing, {"force_low_memory": True})
    world.pool.get_model("bert", "usual", Thing)
    world.minutes = 10
    assert world.pool.cleanup_unused_resources() == 1
    assert world.held() == {"model bert usual cpu"}


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_load_in_low_memory_mode_cleans_up_first(world: World, low_memory: bool) -> None:
    fill(world)
    world.pool.enable_low_memory_mode(low_memory)
    world.minutes = 11
    world.pool.get_model("bert", "next", Thing)
    assert world.held() == {"model bert next cpu"} | (set() if low_memory else SMALL | LARGE)


def test_a_negative_age_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="max_age_minutes: -1 is negative"):
        world.pool.cleanup_unused_resources(-1)


@pytest.mark.parametrize(
    ("environment", "available", "expected"),
    [
        (None, 4096 * MB, False),
        (None, 4096 * MB - 1, True),  # megabytes against megabytes
        ("", 64 * GIB, False),
        ("1", 64 * GIB, True),
        ("Yes", 64 * GIB, True),
        ("0", 1 * GIB, False),
    ],
)
def test_low_memory_mode(
    world: World, monkeypatch: pytest.MonkeyPatch, environment: str | None, available: int, expected: bool
) -> None:
    world.available = available
    if environment is not None:
        monkeypatch.setenv(ENVIRONMENT, environment)  # after the pool was made: it counts all the same
    assert world.pool.get_stats()["low_memory_mode"] is expected
    world.pool.enable_low_memory_mode(not expected)
    assert world.pool.get_stats()["low_memory_mode"] is not expected


def test_a_switch_that_is_none_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "maybe")
    with pytest.raises(ConfigError, match=r"RESOURCE_POOL_LOW_MEMORY: 'maybe' is not a switch\. Allowed: 1, true"):
        world.pool.get_stats()
