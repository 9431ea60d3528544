"""The detector's cache: used while nothing changes, and never believed over what the probe sees."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.hardware import HardwareCacheWarning, HardwareReport, confirmed_report, probe_devices
from pytest_hfaccel.hardware.confirm import MAX_AGE_S
from tests.unit.compat.hardware_fakes import Machine, seen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "made" / "hardware.json"


def available(file: Path, machine: Machine, *, force_refresh: bool = False) -> list[str]:
    report = confirmed_report(file, force_refresh, probe=machine.probe, confirm=machine.confirm)
    return [device.kind for device in report.present()]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_the_runtimes_are_asked_once(file: Path) -> None:
    machine = Machine(seen("cuda:0"))
    assert available(file, machine) == available(file, machine) == ["cpu", "cuda"]
    assert machine.asked == [["cuda:0"]]
    available(file, machine, force_refresh=True)
    assert len(machine.asked) == 2
    assert [path.name for path in file.parent.iterdir()] == ["hardware.json"]


def test_the_cache_has_the_details_too(file: Path) -> None:
    machine = Machine(seen("cuda:0"))
    first, second = (confirmed_report(file, probe=machine.probe, confirm=machine.confirm) for _ in range(2))
    assert first == second
    assert len(machine.asked) == 1


def test_a_device_that_is_gone_is_gone(file: Path) -> None:
    available(file, Machine(seen("cuda:0")))
    without = Machine()
    assert available(file, without) == ["cpu"]
    assert without.asked == []


def test_a_device_that_is_new_is_asked(file: Path) -> None:
    available(file, Machine(seen("cuda:0")))
    machine = Machine(seen("cuda:0"), seen("xpu:0"))
    assert available(file, machine) == ["cpu", "cuda", "xpu"]
    assert machine.asked == [["cuda:0", "xpu:0"]]


def test_another_driver_is_asked_again(file: Path) -> None:
    available(file, Machine(seen("cuda:0")))
    machine = Machine(replace(seen("cuda:0"), details={"driver": "2"}), broken=["cuda:0"])
    assert available(file, machine) == ["cpu"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["key"].update(boot="another"),
        lambda content: content["key"]["versions"].update(torch="1.0"),
        lambda content: content.update(time=time.time() - MAX_AGE_S - 1),
        lambda content: content.update(time=time.time() + 3600),
        lambda content: content.update(format=0),
    ],
    ids=["another boot", "another torch", "too old", "from the future", "another format"],
)
def test_what_makes_it_stale(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    available(file, Machine(seen("cuda:0")))
    edit(file, change)
    machine = Machine(seen("cuda:0"))
    available(file, machine)
    assert machine.asked == [["cuda:0"]]


def test_a_forged_cache_invents_nothing(file: Path) -> None:
    """A device that the probe does not see is not there, whatever else the file says, be its key right."""
    available(file, Machine(seen("cuda:0")))
    forged = {"device": "rocm:0", "present": True, "reason": "", "name": "", "memory_bytes": None, "details": {}}
    edit(file, lambda content: content["confirmed"].append(forged))
    machine = Machine(seen("cuda:0"))
    assert available(file, machine) == ["cpu", "cuda"]
    assert machine.asked == []


def test_a_failure_is_not_kept(file: Path) -> None:
    machine = Machine(seen("cuda:0"), seen("xpu:0"), broken=["cuda:0"])
    assert available(file, machine) == ["cpu", "xpu"]
    machine.broken.clear()
    assert available(file, machine) == ["cpu", "cuda", "xpu"]
    assert machine.asked == [["cuda:0", "xpu:0"], ["cuda:0"]]


def test_a_file_cannot_deny_a_device_either(file: Path) -> None:
    available(file, Machine(seen("cuda:0")))
    edit(file, lambda content: content["confirmed"][0].update(present=False))
    machine = Machine(seen("cuda:0"))
    assert available(file, machine) == ["cpu", "cuda"]
    assert machine.asked == [["cuda:0"]]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        '{"format": 1}',
        '{"format": 1, "time": "soon", "key": {}, "confirmed": []}',
        '{"format": 1, "time": 1, "key": {}, "confirmed": [{"device": 3}]}',
        '{"format": 1, "time": 1, "key": {}, "confirmed": [{"device": "toaster", "present": true, "reason": "", '
        '"name": "", "memory_bytes": null, "details": {}}]}',
        '{"format": 1, "time": 1, "key": {}, "confirmed": [{"device": "cuda:0", "present": true, "reason": "", '
        '"name": "", "memory_bytes": "8", "details": {}}]}',
        "\udcff",
    ],
)
def test_a_damaged_file_is_set_aside(file: Path, content: str) -> None:
    file.parent.mkdir()
    raw = content.encode("utf-8", "surrogateescape")
    file.write_bytes(raw)
    machine = Machine(seen("cuda:0"))
    with pytest.warns(HardwareCacheWarning, match="damaged"):
        assert available(file, machine) == ["cpu", "cuda"]
    (aside,) = file.parent.glob("hardware.json.damaged-*")
    assert aside.read_bytes() == raw
    assert available(file, machine) == ["cpu", "cuda"]
    assert machine.asked == [["cuda:0"]]


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.warns(HardwareCacheWarning, match="name a writable file as cache_file"):
        assert available(tmp_path / "taken" / "hardware.json", Machine(seen("cuda:0"))) == ["cpu", "cuda"]


def test_parallel_writers_leave_a_whole_file(file: Path) -> None:
    def refresh() -> None:
        for _ in range(10):
            available(file, Machine(seen("cuda:0")), force_refresh=True)

    threads = [threading.Thread(target=refresh) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if file.exists():
            json.loads(file.read_text())
    machine = Machine(seen("cuda:0"))
    assert available(file, machine) == ["cpu", "cuda"]
    assert machine.asked == []


def test_the_key_of_this_machine_survives_json_and_time(file: Path) -> None:
    machine = Machine()

    def probe() -> HardwareReport:
        return HardwareReport((*probe_devices().presences, seen("cuda:7")))

    for _ in range(2):
        confirmed_report(file, probe=probe, confirm=machine.confirm)
    assert len(machine.asked) == 1
    key = json.loads(file.read_text())["key"]
    assert key["versions"]["torch"]
    assert key["boot"]
