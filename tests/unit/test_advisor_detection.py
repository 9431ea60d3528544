"""A hardware report, summarised by kind of device."""

from __future__ import annotations

from pytest_hfaccel.compat.hardware_model_integration import machine_of
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence

CPU = Presence(Device("cpu"), True, "8 cores", memory_bytes=100)


def report(*presences: Presence) -> HardwareReport:
    return HardwareReport((CPU, *presences))


def test_the_largest_device_of_a_kind_counts() -> None:
    small, large = (
        Presence(Device("cuda", index), True, index, memory_bytes=size) for index, size in (("0", 8), ("1", 24))
    )
    machine = machine_of(report(small, large))
    assert machine.facts("cuda").memory_bytes == 24
    assert machine.present == ["cuda", "cpu"]


def test_an_absent_device_keeps_its_reason_and_has_no_memory() -> None:
    machine = machine_of(report(Presence(Device("cuda", "0"), False, "no driver", memory_bytes=8)))
    assert not machine.facts("cuda").is_present
    assert (machine.facts("cuda").reason, machine.facts("cuda").memory_bytes) == ("no driver", None)
    assert machine.facts("rocm").reason == "not found on this machine"


def test_openvino_precedes_the_cpu_where_it_has_a_gpu() -> None:
    plugin = Presence(Device("openvino", "CPU"), True, "openvino", memory_bytes=100)
    gpu = Presence(Device("openvino", "GPU.0"), True, "a GPU", memory_bytes=50)
    assert machine_of(report(plugin)).present == ["openvino", "cpu"]
    machine = machine_of(report(plugin, gpu))
    assert machine.present == ["openvino", "cpu"]
    assert machine.facts("openvino").memory_bytes == 50
