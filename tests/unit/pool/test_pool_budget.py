"""Memory budgets as users write them, and the memory that is there for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pytest_hfaccel.core.errors import ConfigError, format_bytes
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.cpu import read_memory
from pytest_hfaccel.pool import device_budget, parse_budget

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 * GIB),
        (" 1.5 gib ", 3 * GIB // 2),
        ("500MB", 500_000_000),
        ("2kB", 2000),
        ("1TiB", 2**40),
        ("4096B", 4096),
        ("50%", 0.5),
        ("12.5 %", 0.125),
        ("100%", 1.0),
        ("", 0.7),
    ],
)
def test_budgets_that_can_be(text: str, expected: float) -> None:
    assert parse_budget(text) == expected
    assert type(parse_budget(text)) is type(expected)


@pytest.mark.parametrize("text", ["8", "8GiBi", "8 apples", "-1GiB", "0%", "0MB", "101%", "1IB", "GiB", "50%%"])
def test_budgets_that_cannot_be(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"HFACCEL_POOL_MEMORY: .* is not a memory budget\. Allowed: bytes with a unit"
    ):
        device_budget(text)


def test_bytes_hold_for_every_device() -> None:
    budget = device_budget("2GiB")
    assert budget(Device("cpu")) == budget(Device("cuda", "0")) == 2 * GIB


def test_a_share_is_of_the_host_or_of_what_the_caller_says() -> None:
    budget = device_budget("50%", lambda device: 4 * GIB if device.kind == "cuda" else None)
    assert budget(Device("cpu")) == budget(Device("openvino", "CPU")) == 5 * GIB
    assert budget(Device("cuda", "0")) == 2 * GIB
    assert budget(Device("openvino", "GPU.0")) is None
    assert device_budget()(Device("xpu", "0")) is None
    assert device_budget()(Device("cpu")) == 7 * GIB


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * GIB, "3.0 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_for_people(count: int, expected: str) -> None:
    assert format_bytes(count) == expected


@pytest.fixture(autouse=True)
def _ten_gib_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=10 * GIB, available=10 * GIB))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_cgroup2(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    write(folder / "memory.max", limit + "\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {inactive}\n")


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    assert read_memory(tmp_path).available_bytes == 10 * GIB


def test_a_cgroup_limit_counts_less_its_usage_plus_its_page_cache(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/job\n")
    write_cgroup2(tmp_path / "sys/fs/cgroup/job", str(4 * GIB), 3 * GIB, inactive=GIB)
    assert read_memory(tmp_path).available_bytes == 2 * GIB


def test_the_tightest_cgroup_above_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/slice/job\n")
    write_cgroup2(tmp_path / "sys/fs/cgroup/slice/job", "max", 1 * GIB)
    write_cgroup2(tmp_path / "sys/fs/cgroup/slice", str(6 * GIB), 5 * GIB)
    assert read_memory(tmp_path).available_bytes == 1 * GIB


def test_a_container_sees_its_cgroup_at_the_root(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/not/visible/in/here\n")
    write_cgroup2(tmp_path / "sys/fs/cgroup", str(3 * GIB), 1 * GIB)
    assert read_memory(tmp_path).available_bytes == 2 * GIB


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "9:cpu:/x\n5:memory:/docker/abc\n")
    folder = tmp_path / "sys/fs/cgroup/memory/docker/abc"
    write(folder / "memory.limit_in_bytes", str(2 * GIB))
    write(folder / "memory.usage_in_bytes", str(3 * GIB // 2))
    write(folder / "memory.stat", "inactive_file 7\ntotal_inactive_file 0\n")
    assert read_memory(tmp_path).available_bytes == GIB // 2


def test_a_cgroup_without_a_limit_leaves_the_machine(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    write_cgroup2(tmp_path / "sys/fs/cgroup", "max", 5 * GIB)
    assert read_memory(tmp_path).available_bytes == 10 * GIB


def test_the_real_machine_has_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < read_memory().available_bytes <= psutil.virtual_memory().total
