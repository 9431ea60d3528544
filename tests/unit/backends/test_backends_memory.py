"""Recognising that memory ran out, and reading what a process holds."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.backends.memory import ProcessMemory, out_of_memory_raised
from pytest_hfaccel.core.errors import OutOfMemory, is_out_of_memory

MIB = 2**20


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("HIP error"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[GPU] clEnqueueMapBuffer, error code: -5 CL_OUT_OF_RESOURCES"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemory) as caught, out_of_memory_raised("cuda:0", "run"):
        raise error
    assert caught.value.stage == "run"
    assert caught.value.message.startswith("cuda:0 ran out of memory")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)), out_of_memory_raised("cpu", "load"):
        raise error


def test_our_own_error_keeps_its_message_and_stage() -> None:
    with pytest.raises(OutOfMemory, match="converting") as caught, out_of_memory_raised("cpu", "load"):
        raise OutOfMemory("memory ran out while converting", stage="convert")
    assert caught.value.stage == "convert"


def test_the_high_water_mark_comes_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 99999999 kB\nVmRSS:\t 100 kB\n")
    memory = ProcessMemory(tmp_path)
    assert memory.read()["peak_bytes"] == 99999999 * 1024
    assert memory.read()["peak_source"] == "VmHWM since the process began"
    memory.reset_peak()
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert memory.read()["peak_source"] == "VmHWM since its reset"


def test_a_refused_reset_is_admitted(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmHWM:\t 99999999 kB\n")
    (tmp_path / "clear_refs").mkdir()
    memory = ProcessMemory(tmp_path)
    memory.reset_peak()
    assert memory.read()["peak_source"] == "VmHWM since the process began"


def test_without_procfs_the_system_is_asked(tmp_path: Path) -> None:
    found = ProcessMemory(tmp_path).read()
    assert found["peak_bytes"] >= found["current_bytes"] > MIB
    assert found["source"] == "process"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the reset is Linux's")
def test_a_short_peak_is_seen_and_forgotten() -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this kernel does not let a process reset its peak")
    memory = ProcessMemory()
    memory.reset_peak()
    before = memory.read()["current_bytes"]
    block = bytearray(b"x" * (64 * MIB))
    del block
    assert memory.read()["peak_bytes"] - before > 48 * MIB
    memory.reset_peak()
    found = memory.read()
    # Not against `before`: the allocator or the system may keep what was given back, and then it is used now.
    assert found["peak_bytes"] - found["current_bytes"] < 16 * MIB
