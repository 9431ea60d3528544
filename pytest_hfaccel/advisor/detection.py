"""This machine, as `pytest_hfaccel.hardware` finds it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_hfaccel.advisor.declared import KINDS
from pytest_hfaccel.advisor.machine import DeviceFacts, Machine

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport, Presence


def detect_machine(hardware_cache: str | os.PathLike[str] | None = None, *, force_refresh: bool = False) -> Machine:
    """Find out what this machine has.

    Without a cache the cheap probes are believed (milliseconds). With one, each device counts only if its runtime
    confirmed it, and the confirmation is kept in that file (see `pytest_hfaccel.hardware.HardwareDetector`).

    Args:
        hardware_cache: File in which confirmations are kept.
        force_refresh: Ask the runtimes again, whatever that file says.
    """
    from pytest_hfaccel.hardware import HardwareDetector, probe_devices
    from pytest_hfaccel.hardware.cpu_facts import read_cpu

    is_confirmed = hardware_cache is not None
    report = HardwareDetector(hardware_cache, force_refresh).report if is_confirmed else probe_devices()
    cpu = read_cpu()
    return replace(
        machine_of(report), cores=cpu.cores, available_bytes=cpu.available_bytes, total_bytes=cpu.memory_bytes
    )


def machine_of(report: HardwareReport) -> Machine:
    """Summarise a report by kind of device: of several of a kind, the one with the most memory of its own."""
    facts = {}
    for kind in KINDS:
        found = [presence for presence in report.presences if presence.device.kind == kind]
        if found:
            best = max(found, key=_rank)
            facts[kind] = DeviceFacts(best.present, best.memory_bytes if best.present else None, best.reason)
    return Machine(facts, report=report)


def _rank(presence: Presence) -> tuple[bool, bool, int]:
    return presence.present, presence.device.target.startswith("GPU"), presence.memory_bytes or 0
