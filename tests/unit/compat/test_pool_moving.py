"""Models moved between devices and parked in main memory, with modules that only remember where they were put."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError, LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool import ResourcePool
from tests.unit.compat.pool_machines import GIB, two_gpus

MB = 2**20
LIMIT = 60.0  # seconds; what takes longer is a deadlock


class Module:
    """Stands for a torch module: it is where `place` put it last."""

    def __init__(self, nbytes: int = 10) -> None:
        self.nbytes = nbytes
        self.place = "nowhere"


class World:
    """A pool on two made-up GPUs, and the time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.full: set[str] = set()
        self.pool = self.make_pool(lambda _: None)

    def make_pool(self, budget: Callable[[Device], int | None]) -> ResourcePool:
        self.pool = ResourcePool(
            devices=two_gpus(),
            error_reports=None,
            budget=budget,
            clock=lambda: 1000 + self.seconds,
            place=self.put,
        )
        return self.pool

    def put(self, value: Module, device: Device, precision: str = "", *, is_emulated: bool = False) -> Placement:
        del is_emulated
        value.place = f"half way to {device}"
        if device.id in self.full:
            raise OutOfMemory(f"{device}: out of memory")
        value.place = device.id
        return Placement(device.id, (device.id,), precision or "fp32", precision or "fp32")

    def held(self) -> list[str]:
        return [entry["key"] for entry in self.pool.usage()]


@pytest.fixture
def world() -> World:
    return World()


def test_the_object_itself_moves(world: World) -> None:
    model = world.pool.get_model("bert", "base", Module, {"device": "cpu"})
    assert world.pool.move_model_to_device("bert", "base", "cuda:1") is model
    assert model.place == "cuda:1"
    (details,) = world.pool.get_resource_details()
    assert (details["device"], details["moved"]) == ("cuda:1", "moved from cpu")
    assert details["placement"]["actual_devices"] == ["cuda:1"]
    assert world.pool.get_model("bert", "base", Module, {"device": "cuda:1"}) is model
    assert world.pool.get_model("bert", "base", Module, {"device": "cpu"}) is not model
    assert world.pool.stats()["bytes_by_device"] == {"cpu": 10, "cuda:1": 10}


def test_moves_are_not_requests(world: World) -> None:
    world.pool.get_model("bert", "base", Module)
    world.pool.move_model_to_device("bert", "base", "cpu")
    stats = world.pool.stats()
    assert (stats["requests"], stats["misses"], stats["loads"], stats["moves"]) == (1, 1, 1, 1)


def test_a_move_to_where_it_is_does_nothing(world: World) -> None:
    model = world.pool.get_model("bert", "base", Module, {"device": "cuda"})
    assert world.pool.move_model_to_device("bert", "base", "cuda") is model
    assert world.pool.stats()["moves"] == 0


def test_a_move_onto_an_instance_returns_that_one(world: World) -> None:
    world.pool.get_model("bert", "base", Module, {"device": "cpu"})
    there = world.pool.get_model("bert", "base", Module, {"device": "cuda"})
    assert world.pool.move_model_to_device("bert", "base", "cuda", from_device="cpu") is there
    assert world.held() == ["model bert base cuda:0"]


def test_which_instance_is_meant_must_be_clear(world: World) -> None:
    with pytest.raises(ConfigError, match=r"bert base: no models are meant\. In the pool: none of that name"):
        world.pool.move_model_to_device("bert", "base", "cpu")
    world.pool.get_model("bert", "base", Module, {"device": "cuda:0"})
    world.pool.get_model("bert", "base", Module, {"device": "cuda:0", "precision": "fp16"})
    with pytest.raises(ConfigError, match=r"several models are meant.*base cuda:0, model bert base cuda:0 fp16"):
        world.pool.move_model_to_device("bert", "base", "cpu", from_device="cuda")
    world.pool.move_model_to_device("bert", "base", "cpu", precision="fp16")
    assert world.held() == ["model bert base cuda:0", "model bert base cpu fp16"]


def test_a_device_that_is_absent_takes_nothing(world: World) -> None:
    model = world.pool.get_model("bert", "base", Module, {"device": "cpu"})
    with pytest.raises(BackendUnavailable, match="mps: not macOS"):
        world.pool.move_model_to_device("bert", "base", "mps")
    assert model.place == "cpu"


def test_a_model_stays_where_the_target_is_full(world: World) -> None:
    model = world.pool.get_model("bert", "base", Module, {"device": "cpu"})
    world.full.add("cuda:0")
    with pytest.raises(OutOfMemory, match="cuda:0: out of memory"):
        world.pool.move_model_to_device("bert", "base", "cuda")
    assert model.place == "cpu"
    assert world.pool.get_model("bert", "base", Module, {"device": "cpu"}) is model


def test_a_model_that_fits_nowhere_is_given_up(world: World) -> None:
    world.pool.get_model("bert", "base", Module, {"device": "cpu"})
    world.full |= {"cuda:0", "cpu"}
    with pytest.raises(LoadError, match="could not be moved to cuda:0, nor back") as caught:
        world.pool.move_model_to_device("bert", "base", "cuda")
    assert isinstance(caught.value.__cause__, OutOfMemory)
    assert world.held() == []


def test_the_budget_of_the_target_counts(world: World) -> None:
    pool = world.make_pool(lambda device: 15 if device.kind == "cuda" else None)
    idle = pool.get_model("bert", "idle", Module, {"device": "cuda"})
    moved = pool.get_model("bert", "base", Module, {"device": "cpu"})
    pool.move_model_to_device("bert", "base", "cuda")
    assert (world.held(), moved.place, idle.place) == (["model bert base cuda:0"], "cuda:0", "cuda:0")
    assert pool.stats()["peak_bytes_by_device"]["cuda:0"] <= 15


def large(nbytes: int = 500 * MB + 1) -> Callable[[], Module]:
    return lambda: Module(nbytes)


def test_low_memory_mode_parks_large_models_and_brings_them_back(world: World) -> None:
    big = world.pool.get_model("llama", "big", large())
    small = world.pool.get_model("llama", "small", large(500 * MB))
    world.pool.enable_low_memory_mode()
    world.seconds = 61
    assert world.pool.cleanup_unused_resources() == 0
    assert (big.place, small.place) == ("cpu", "cuda:0")
    assert world.held() == ["model llama small cuda:0", "model llama big cpu (parked, from cuda:0)"]
    details = world.pool.get_resource_details()[1]
    assert details["moved"] == "parked in main memory by low-memory mode"

    own = world.pool.get_model("llama", "big", Module, {"device": "cpu"})
    assert own is not big  # a parked model is not the CPU's instance
    assert world.pool.get_model("llama", "big", Module) is big
    assert big.place == "cuda:0"
    assert "model llama big cpu (parked, from cuda:0)" not in world.held()


def test_outside_low_memory_mode_nothing_is_parked(world: World) -> None:
    world.pool.enable_low_memory_mode(False)
    usual = world.pool.get_model("llama", "usual", large())
    frugal = world.pool.get_model("llama", "frugal", large(), {"force_low_memory": True})
    world.seconds = 61
    world.pool.cleanup_unused_resources()
    assert (usual.place, frugal.place) == ("cuda:0", "cpu")


def test_a_model_that_was_just_asked_for_is_not_parked(world: World) -> None:
    model = world.pool.get_model("llama", "big", large())
    world.pool.enable_low_memory_mode()
    world.seconds = 59
    world.pool.cleanup_unused_resources()
    assert model.place == "cuda:0"


def test_a_model_is_not_parked_where_there_is_no_room(world: World) -> None:
    pool = world.make_pool(lambda device: GIB // 4 if device.kind == "cpu" else None)
    model = pool.get_model("llama", "big", large())
    pool.enable_low_memory_mode()
    world.seconds = 61
    assert pool.cleanup_unused_resources() == 0
    assert model.place == "cuda:0"
    assert pool.get_model("llama", "big", Module) is model


def test_a_parked_model_is_dropped_when_it_is_due(world: World) -> None:
    world.pool.get_model("llama", "big", large())
    world.pool.enable_low_memory_mode()
    world.seconds = 61
    world.pool.cleanup_unused_resources()
    world.seconds += 5 * 60
    assert world.pool.cleanup_unused_resources() == 1
    assert world.held() == []


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2])
def test_many_threads_ask_move_park_and_fail(world: World, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    size = 500 * MB + 1
    pool = world.make_pool(lambda _: 6 * size)
    pool.enable_low_memory_mode()

    def act(name: str, device: str, what: float) -> None:
        world.seconds += 10.0  # so that some were unused for long enough to be parked
        world.full = {"cuda:1"} if chance.random() < 0.1 else set()
        # A model may be gone, or be in two places, by the time it is to be moved; a device may be full.
        with contextlib.suppress(ConfigError, LoadError, OutOfMemory):
            if what < 0.7:
                pool.get_model("bert", name, large(), {"device": device})
            elif what < 0.9:
                pool.move_model_to_device("bert", name, device)
            else:
                pool.cleanup_unused_resources(0 if what > 0.97 else 30)

    with ThreadPoolExecutor(16) as threads:
        devices = ["cpu", "cuda:0", "cuda:1"]
        asked = [
            threads.submit(act, f"model-{chance.randrange(6)}", chance.choice(devices), chance.random())
            for _ in range(400)
        ]
        for future in asked:
            future.result(LIMIT)

    stats = pool.stats()
    assert stats["requests"] == stats["hits"] + stats["misses"]
    assert stats["misses"] == stats["loads"] + stats["failures"]
    assert stats["moves"] > 0
    assert max(stats["bytes_by_device"].values(), default=0) <= 6 * size
    for entry in pool.get_resource_details():
        assert (entry["state"], entry["leases"]) == ("ready", 0)
        assert entry["placement"]["actual_devices"] == [entry["device"]]
