"""What the advice is for: the devices of a machine, their memory, and the cores this process may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_hfaccel.advisor.declared import KINDS
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence


@dataclass(frozen=True)
class DeviceFacts:
    """A kind of device.

    Attributes:
        is_present: Whether its runtime answered.
        memory_bytes: Memory of the largest device of the kind; `None` where that is not known.
        reason: What was found, or why it is absent.
    """

    is_present: bool
    memory_bytes: int | None = None
    reason: str = ""


_ABSENT = DeviceFacts(False, None, "not found on this machine")


@dataclass(frozen=True)
class Machine:
    """A machine as far as advice needs to know it.

    Attributes:
        devices: Facts by kind of device; a kind that is missing is absent.
        cores: Cores this process may use.
        available_bytes: Main memory this process can still take.
        total_bytes: Main memory this process may have at most.
        report: The devices one by one; made of the facts where it is not given.
    """

    devices: Mapping[str, DeviceFacts]
    cores: int = 1
    available_bytes: int = 0
    total_bytes: int = 0
    report: HardwareReport | None = None

    def facts(self, kind: str) -> DeviceFacts:
        """Return what is known of a kind of device."""
        return self.devices.get(kind, _ABSENT)

    @property
    def present(self) -> list[str]:
        """The kinds of device that are here, preferred ones first."""
        return [kind for kind in KINDS if self.facts(kind).is_present]

    @property
    def hardware(self) -> HardwareReport:
        """The devices one by one."""
        if self.report is not None:
            return self.report
        presences = []
        for kind, facts in self.devices.items():
            details = {"cores": self.cores} if kind == "cpu" else {}
            presences.append(
                Presence(Device.parse(kind), facts.is_present, facts.reason, kind, facts.memory_bytes, details)
            )
        return HardwareReport(tuple(presences))
