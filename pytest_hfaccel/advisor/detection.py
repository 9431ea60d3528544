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
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.hardware.cpu_facts import read_cpu

    machine = machine_of(probe_devices())
    cpu = read_cpu()
    machine = replace(machine, cores=cpu.cores, available_bytes=cpu.available_bytes, total_bytes=cpu.memory_bytes)
    return machine if hardware_cache is None else _confirmed(machine, hardware_cache, force_refresh)


def machine_of(report: HardwareReport) -> Machine:
    """Summarise a report by kind of device: of several of a kind, the one with the most memory of its own."""
    facts = {}
    for kind in KINDS:
        found = [presence for presence in report.presences if presence.device.kind == kind]
        if found:
            best = max(found, key=_rank)
            facts[kind] = DeviceFacts(best.present, best.memory_bytes if best.present else None, best.reason)
    gpu = any(device.kind == "openvino" and device.target.startswith("GPU") for device in report.present())
    return Machine(facts, preference=_with_openvino_first(KINDS) if gpu else KINDS)


def _rank(presence: Presence) -> tuple[bool, bool, int]:
    return presence.present, presence.device.target.startswith("GPU"), presence.memory_bytes or 0


def _with_openvino_first(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Prefer OpenVINO to the CPU where it has more than the CPU to run on."""
    others = [kind for kind in kinds if kind != "openvino"]
    at = others.index("cpu")
    return (*others[:at], "openvino", *others[at:])


def _confirmed(machine: Machine, cache: str | os.PathLike[str], force_refresh: bool) -> Machine:
    from pytest_hfaccel.hardware import HardwareDetector

    detector = HardwareDetector(cache_file=cache, force_refresh=force_refresh)
    available, errors = detector.get_available_hardware(), detector.get_errors()
    refuted = {
        kind: DeviceFacts(False, None, str(errors.get(kind, "its runtime did not confirm it")))
        for kind, facts in machine.devices.items()
        if facts.is_present and not available.get(kind)
    }
    return replace(machine, devices={**machine.devices, **refuted})
