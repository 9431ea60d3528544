"""Machines that are not here: what their probes see and what their runtimes answer."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_hfaccel.compat.hardware_detection import GB
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence

CPU = Presence(Device("cpu"), True, "2 cores", "a CPU", 8 * GB)


def seen(name: str, *, memory_gb: int = 16) -> Presence:
    """A device that the probe sees."""
    return Presence(Device.parse(name), True, "driver 1", f"a {name}", memory_gb * GB, {"driver": "1"})


class Machine:
    """Devices, some of which do not compute; it counts how often its runtimes are asked."""

    def __init__(self, *presences: Presence, broken: Iterable[str] = ()) -> None:
        self.presences = presences
        self.broken = set(broken)
        self.asked: list[list[str]] = []

    def probe(self) -> HardwareReport:
        return HardwareReport((CPU, *self.presences))

    def confirm(self, devices: Iterable[Device]) -> list[Presence]:
        devices = list(devices)
        self.asked.append([device.id for device in devices])
        return [self._answer(device) for device in devices]

    def _answer(self, device: Device) -> Presence:
        if device.id in self.broken:
            return Presence(device, False, "the driver is too old")
        return Presence(device, True, "computed", details={"compute_capability": "9.0"})
