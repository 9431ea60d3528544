"""The answer of a probe: each device with its presence and the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.devices import rank_of
from pytest_hfaccel.core.spec import CPU, Device

_OPENVINO_CHOOSERS = ("AUTO", "HETERO", "MULTI", "BATCH")
"""OpenVINO devices that are not hardware: they choose among those that are."""


def installed_version(package: str) -> str | None:
    """Return the version of a package, by its name on the index; `None` where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Presence:
    """Whether a device is there.

    Attributes:
        device: The device.
        present: Whether it can be used.
        reason: How that is known, or why it cannot be used; one line.
        name: What the device calls itself; empty when not known.
        memory_bytes: Its memory: its own, or what this process may have of the host's. `None` when not known.
        details: Further facts (driver, compute capability, ...), JSON values.
    """

    device: Device
    present: bool
    reason: str
    name: str = ""
    memory_bytes: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def implementation(self) -> str:
        """`real`, `emulated` (a software adapter computes), `unknown` (nobody has asked it yet) or `unavailable`."""
        return str(self.details.get("implementation", "real")) if self.present else "unavailable"

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {**vars(self), "device": self.device.id, "implementation": self.implementation}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Presence:
        """Rebuild a presence from what `to_json` returned."""
        kind, _, target = data["device"].partition(":")
        known = {name: value for name, value in data.items() if name != "implementation"}
        return cls(**{**known, "device": Device(kind, target)})


@dataclass(frozen=True)
class HardwareReport:
    """All devices that were looked for.

    Attributes:
        presences: One entry per device that is there, and at least one per kind that is not.
    """

    presences: tuple[Presence, ...]

    def present(self) -> list[Device]:
        """The devices that are there, in the order in which kinds are listed; the CPU is always among them."""
        return [presence.device for presence in self.presences if presence.present]

    def absent(self) -> list[Presence]:
        """The devices that are not there, with their reasons."""
        return [presence for presence in self.presences if not presence.present]

    def best(self) -> Device:
        """The device of a plain run: an accelerator if there is one, else the CPU."""
        return min(self.present(), key=lambda device: (rank_of(device.kind, device.target), device.target), default=CPU)

    def find(self, device: Device) -> Presence | None:
        """Return what is known of a device; `None` for a kind that is not probed (`fake`, third-party kinds).

        One that compiles or splits models is there where it is without; the rest shows when a model is loaded.
        """
        if device != device.eager:
            eager = self.find(device.eager)
            return None if eager is None else replace(eager, device=device)
        same_kind = [presence for presence in self.presences if presence.device.kind == device.kind]
        if device.kind == "openvino" and device.target.partition(":")[0] in _OPENVINO_CHOOSERS:
            there = any(presence.present for presence in same_kind)
            return Presence(device, there, "chooses among OpenVINO's devices" if there else same_kind[0].reason)
        exact = next((presence for presence in same_kind if _is_same(presence.device, device)), None)
        if exact is not None or not same_kind:
            return exact
        found = ", ".join(presence.device.id for presence in same_kind if presence.present)
        return Presence(device, False, f"not among those found: {found}" if found else same_kind[0].reason)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {"best": self.best().id, "devices": [presence.to_json() for presence in self.presences]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HardwareReport:
        """Rebuild a report from what `to_json` returned."""
        return cls(tuple(Presence.from_json(presence) for presence in data["devices"]))


HARDWARE_FILE = "HFACCEL_HARDWARE_FILE"
"""Environment variable of the processes of a run on several machines: a file with the `HardwareReport` of all of them,
which then decides what is collected, whichever machine collects."""


def hardware_of_cluster() -> HardwareReport | None:
    """Return what all machines of this run have; `None` for a run on one."""
    path = os.environ.get(HARDWARE_FILE)
    return HardwareReport.from_json(json.loads(Path(path).read_text(encoding="utf-8"))) if path else None


def _is_same(one: Device, other: Device) -> bool:
    """Whether two names mean one device: OpenVINO's `GPU` is `GPU.0`."""
    return one.target == other.target or one.target == f"{other.target}.0" or other.target == f"{one.target}.0"
