"""Where a fork is safe, which errors lose a device, and what a dead process has left."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import LoadError, is_device_lost, is_fault_of_machine
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.health import driver_problems
from pytest_hfaccel.plugin.processes.crashes import read_death
from pytest_hfaccel.plugin.processes.isolation import why_not_fork
from tests.unit.hardware.test_hardware_cuda import Nvml


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have left threads of their own."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def process(folder: Path, *, threads: int = 0, maps: str = "", opened: str = "/dev/null") -> Path:
    """What procfs says of a process."""
    for number in range(threads + 1):
        (folder / "task" / str(number)).mkdir(parents=True)
    (folder / "fd").mkdir()
    (folder / "fd" / "3").symlink_to(opened)
    (folder / "maps").write_text(maps, encoding="utf-8")
    return folder


def test_a_process_with_one_thread_and_no_device_is_forked(tmp_path: Path) -> None:
    assert why_not_fork(process(tmp_path)) == ""


def test_threads_of_openblas_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends them before a fork, and starts them again in it; numpy and scipy have a copy each."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    maps = "".join(f"7f00-7f01 r-xp 0 08:01 5 /x/{name}.libs/libscipy_openblas.so\n" * 2 for name in ("numpy", "scipy"))
    assert why_not_fork(process(tmp_path / "same", threads=4, maps=maps)) == ""
    more = why_not_fork(process(tmp_path / "more", threads=5, maps=maps))
    assert more == "libraries have started 5 threads in this process"


@pytest.mark.parametrize("file", ["/dev/nvidia-uvm", "/dev/kfd", "/dev/dri/renderD128", "/dev/accel/accel0"])
def test_a_process_that_uses_a_device_is_not_forked(tmp_path: Path, file: str) -> None:
    assert why_not_fork(process(tmp_path, opened=file)) == f"this process uses a device ({file})"


@pytest.mark.parametrize(
    ("text", "is_machine"),
    [
        ("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...", False),
        ("CUDA error: device-side assert triggered", False),
        ("CUDA error: unspecified launch failure", False),
        ("CUDA error: misaligned address", False),
        ("HIP error: an illegal memory access was encountered", False),
        ("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)", False),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", True),
    ],
)
def test_errors_after_which_the_process_cannot_use_its_device(text: str, is_machine: bool) -> None:
    error = RuntimeError(text)
    wrapped = LoadError("it cannot be loaded")
    wrapped.__cause__ = error
    for one in (error, wrapped):
        assert is_device_lost(one)
        assert is_fault_of_machine(one) == is_machine
    assert not is_device_lost(ValueError(text))  # of a user's own code, which quotes it


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: invalid argument", ""])
def test_errors_that_the_process_survives(text: str) -> None:
    assert not is_device_lost(RuntimeError(text))


def test_the_driver_is_asked_for_its_gpus() -> None:
    assert list(driver_problems(Device("cuda", "0"), Nvml())) == []
    (silent,) = driver_problems(Device("cuda", "0"), Nvml(status=999))
    assert silent.startswith("the NVIDIA driver does not answer: nvmlInit_v2 returned 999")
    assert list(driver_problems(Device("cuda", "0"), Nvml(names=()))) == ["the NVIDIA driver has lost its GPUs"]
    assert list(driver_problems(CPU, Nvml(status=999))) == []


def test_notes_that_were_just_being_written(tmp_path: Path) -> None:
    """What a process was killed by is told without them."""
    (tmp_path / "gw0.notes").write_text('{"test": "a.py::te', encoding="utf-8")
    death = read_death(tmp_path, "gw0", -signal.SIGBUS)
    assert (death.signal, death.test, death.status) == ("SIGBUS", "", Status.CRASHED)
    assert death.explain("it crashed") == "it crashed (was killed by SIGBUS)"
    assert not list(tmp_path.iterdir())
