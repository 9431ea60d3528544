"""A process's account: what it reserves of which device, when it frees what it keeps, and who computes when."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.core.errors import PoolExhausted
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.visibility import physical_device
from pytest_hfaccel.pool.account import HOST, DeviceAccount, memory_of, resource_of
from pytest_hfaccel.pool.cache import ModelCache
from pytest_hfaccel.pool.ledger import Ledger
from tests.unit.hardware.test_hardware_cuda import Nvml
from tests.unit.pool.pool_samples import make_cell

CUDA = Device("cuda", "0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def pool() -> Iterator[ModelCache]:
    loaded: Any = SimpleNamespace(nbytes=40, close=lambda: None)
    with ModelCache(lambda _: loaded) as made:
        yield made


def account_of(path: Path, pool: ModelCache, limit: int | None = 100) -> DeviceAccount:
    return DeviceAccount(Ledger(path), lambda _: limit, pool, is_share=False)


def taken(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in Ledger(path).usage():
        for name, amount in entry["amounts"].items():  # type: ignore[attr-defined]
            found[name] = found.get(name, 0) + amount
    return found


def test_devices_in_main_memory_share_it(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    wanted = {CPU: 10, Device("openvino", "CPU"): 20, CUDA: 30}
    reservation = account.reserve("cell", wanted, {})
    assert taken(path) == {HOST: 30, "cuda:0": 30}
    reservation.correct({"cuda:0": 5, "xpu:0": 7})
    assert taken(path) == {HOST: 30, "cuda:0": 5}
    reservation.release()
    assert taken(path) == {}


def test_more_than_there_is_is_the_whole_device_unless_it_is_certain(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    account.reserve("margins", {CPU: 500}, {CPU: 60}).release()
    again = account.reserve("again", {CPU: 500}, {CPU: 60})
    assert again.amounts == {HOST: 100}
    again.release()
    with pytest.raises(PoolExhausted, match="weights needs 101 B on host"):
        account.reserve("weights", {CPU: 500}, {CPU: 101})


def test_what_is_kept_for_later_is_entered_and_freed_when_somebody_needs_it(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    reservation = account.reserve("cell", {CPU: 50}, {})
    pool.acquire(make_cell("bert")).release()
    reservation.release()
    assert taken(path) == {HOST: 40}  # the model stays loaded for the next cell
    assert pool.stats()["evictions"] == 0
    account.reserve("larger", {CPU: 90}, {}).release()
    assert pool.stats()["evictions"] == 1


def test_another_process_gets_what_is_kept_at_the_next_chance(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    pool.acquire(make_cell("bert")).release()
    account.settle()
    pid = os.fork()
    if pid == 0:
        other = account_of(path, ModelCache())
        other.reserve("other", {CPU: 90}, {})
        os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        account.settle()
        time.sleep(0.01)
    assert pool.stats()["evictions"] == 1


def test_nobody_computes_while_somebody_measures(path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            account = account_of(path, ModelCache())
            with log.open("a", buffering=1) as file:
                for _ in range(4):
                    with account.computing(CPU):
                        began = time.monotonic()
                        time.sleep(0.01)
                        file.write(f"computes {number} {began} {time.monotonic()}\n")
                        with account.alone(CPU):
                            began = time.monotonic()
                            time.sleep(0.01)
                            file.write(f"measures {number} {began} {time.monotonic()}\n")
            os._exit(0)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    entries = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    spans = [(kind, number, float(began), float(ended)) for kind, number, began, ended in entries]
    assert len(spans) == 24
    for kind, who, began, ended in spans:
        if kind == "measures":
            others = [span for span in spans if span[1] != who]
            assert all(other[3] <= began or other[2] >= ended for other in others)
    assert taken(path) == {}


def test_measuring_on_a_gpu_leaves_other_devices_alone(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    with account.alone(CUDA):
        pid = os.fork()
        if pid == 0:
            with account_of(path, ModelCache()).computing(Device("cuda", "1")):
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_waiting_is_told_to_whoever_counts_time(path: Path, pool: ModelCache) -> None:
    account = account_of(path, pool)
    held = account.reserve("cell", {CPU: 90}, {})
    pid = os.fork()
    if pid == 0:
        other = account_of(path, ModelCache())
        told: list[float] = []
        other.on_wait = told.append
        other.reserve("other", {CPU: 90}, {})
        os._exit(0 if sum(told) > 0.05 else 1)
    time.sleep(0.2)
    held.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_without_a_ledger_nothing_is_asked(pool: ModelCache) -> None:
    account = DeviceAccount(None, lambda _: 0, pool)
    reservation = account.reserve("cell", {CPU: 10**15}, {CPU: 10**15})
    with account.computing(CPU), account.alone(CPU):
        reservation.correct({HOST: 1})
    reservation.release()
    assert account.stats() == {}


@pytest.mark.parametrize(
    ("device", "environ", "physical"),
    [
        ("cuda:0", {}, "cuda:0"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "2,5"}, "cuda:5"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-b"}, "cuda:1"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-x"}, "cuda:GPU-x"),
        ("onnxruntime:CUDA", {"CUDA_VISIBLE_DEVICES": "3"}, "cuda:3"),
        ("rocm:1", {"ROCR_VISIBLE_DEVICES": "4,6,7", "HIP_VISIBLE_DEVICES": "0,2"}, "rocm:7"),
        ("mps", {}, "mps"),
    ],
)
def test_a_device_has_one_name_whatever_a_process_is_shown(device: str, environ: dict[str, str], physical: str) -> None:
    assert physical_device(Device.parse(device), environ, ["GPU-aa", "GPU-bb"]) == physical
    assert resource_of(Device("fake", "0")) == HOST


def test_the_memory_of_the_machine_is_read_without_starting_a_runtime() -> None:
    class Busy(Nvml):
        def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802 - NVIDIA's name
            memory._obj.total, memory._obj.free = handle.value * 2**30, handle.value * 2**20
            return 0

    found = memory_of([HOST, "cuda:1", "xpu:0"], Busy())
    assert list(found) == [HOST, "cuda:1"]
    assert (found["cuda:1"].total_bytes, found["cuda:1"].available_bytes) == (2 * 2**30, 2 * 2**20)
    assert 0 < found[HOST].available_bytes <= found[HOST].total_bytes
    assert list(memory_of([HOST, "cuda:0"], Busy(status=9))) == [HOST]
