"""Made-up machines for the tests of the pool."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_hfaccel.compat.device_choice import Devices
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence

GIB = 2**30
PRESENT = (
    Presence(Device("cpu"), True, "2 cores", memory_bytes=16 * GIB),
    Presence(Device("cuda", "0"), True, "driver", memory_bytes=8 * GIB),
    Presence(Device("cuda", "1"), True, "driver", memory_bytes=24 * GIB),
    Presence(Device("mps"), False, "not macOS"),
    Presence(Device("webgpu"), True, "SwiftShader", details={"implementation": "emulated"}),
)


def machine(*presences: Presence, broken: Iterable[str] = ()) -> Devices:
    """The devices of a machine; those of `broken` are found, but do not answer."""

    def confirm(devices: Iterable[Device]) -> list[Presence]:
        return [Presence(device, device.id not in broken, "asked") for device in devices]

    return Devices(lambda: HardwareReport(presences), confirm)


def two_gpus(*broken: str) -> Devices:
    """A machine with two GPUs and an emulated WebGPU."""
    return machine(*PRESENT, broken=broken)


def cpu_only() -> Devices:
    """A machine without any accelerator."""
    return machine(PRESENT[0], Presence(Device("cuda", "0"), False, "no NVIDIA driver"))
