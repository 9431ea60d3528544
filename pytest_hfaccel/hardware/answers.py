"""What the probes saw, put together with what the runtimes answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pytest_hfaccel.core.presence import HardwareReport, Presence, report_of
from pytest_hfaccel.hardware.kinds import CPU, HARDWARE_TYPES, QUALCOMM

GB = 2**30
"""Sizes in GB count 2**30 bytes, as the detector's guide does."""

_NOT_LOOKED_FOR = {QUALCOMM: "no backend in this version runs models on Qualcomm's accelerators"}


def devices_to_confirm(probed: HardwareReport) -> list[Presence]:
    """The devices that seem to be there, and whose runtime must say so too: all but the CPU, which runs this code."""
    return [presence for presence in probed.presences if presence.present and presence.device.kind != CPU]


def confirmed_report(probed: HardwareReport, answers: Iterable[Presence]) -> HardwareReport:
    """Return what was probed, with each device present only if its runtime answered.

    Args:
        probed: What the cheap signs say.
        answers: What the runtimes said, for the devices of `devices_to_confirm`. Others are ignored: a device that
            the probe does not see is not there.
    """
    by_device = {answer.device: answer for answer in answers}
    asked = {presence.device for presence in devices_to_confirm(probed)}
    return report_of(
        _put_together(presence, by_device.get(presence.device)) if presence.device in asked else presence
        for presence in probed.presences
    )


def _put_together(probed: Presence, answer: Presence | None) -> Presence:
    if answer is None:
        return replace(probed, present=False, reason="no runtime was asked: no built-in backend runs models on it")
    details = {**probed.details, **answer.details}
    reason = f"{probed.reason}; {answer.reason}" if answer.present else answer.reason
    # torch's numbering may differ from the driver's (CUDA_DEVICE_ORDER), so its own name and memory go first.
    name, memory = answer.name or probed.name, answer.memory_bytes or probed.memory_bytes
    return Presence(probed.device, answer.present, reason, name, memory, details)


def availability(report: HardwareReport) -> dict[str, bool]:
    """Return each kind of hardware and whether it is there; an emulated device is not hardware."""
    return {kind: bool(present_of(report, kind)) for kind in HARDWARE_TYPES}


def present_of(report: HardwareReport, kind: str) -> list[Presence]:
    """Return the devices of a kind that are there, in the runtime's order."""
    return [presence for presence in report.presences if presence.device.kind == kind and _is_hardware(presence)]


def details_of(report: HardwareReport, kind: str) -> dict[str, Any]:
    """Return `device_count` and `devices` of a kind.

    Each device has `device` (its id), `name`, `total_memory` (GB of 2**30 bytes; `None` when not known), `reason`
    (how it is known to be there) and what its driver and runtime say about it.
    """
    devices = [_device_details(presence) for presence in present_of(report, kind)]
    return {"device_count": len(devices), "devices": devices}


def absence_reasons(report: HardwareReport) -> dict[str, str]:
    """Return why what is absent is absent: by kind, and by device where others of its kind are there.

    A device beside others of its kind is named only if something of it was seen: that a machine with OpenVINO has no
    NPU is no news.
    """
    reasons: dict[str, str] = {}
    for kind in HARDWARE_TYPES:
        absent = [p for p in report.presences if p.device.kind == kind and not _is_hardware(p)]
        if not present_of(report, kind):
            found = dict.fromkeys(_why_absent(presence) for presence in absent)
            reasons[kind] = "; ".join(found) or _NOT_LOOKED_FOR.get(kind, "it is not looked for on this machine")
        else:
            reasons.update((p.device.id, _why_absent(p)) for p in absent if p.name or p.details)
    return reasons


def _is_hardware(presence: Presence) -> bool:
    return presence.present and not _is_emulated(presence)


def _is_emulated(presence: Presence) -> bool:
    return presence.details.get("implementation") == "emulated"


def _why_absent(presence: Presence) -> str:
    return f"emulated in software: {presence.reason}" if presence.present else presence.reason


def _device_details(presence: Presence) -> dict[str, Any]:
    memory = presence.memory_bytes
    return {
        **presence.details,
        "device": presence.device.id,
        "name": presence.name,
        "total_memory": None if memory is None else memory / GB,
        "reason": presence.reason,
    }
