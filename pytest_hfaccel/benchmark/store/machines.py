"""A device as a row, from the facts of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.benchmark.store.rows import as_json


def device_row(device: str, name: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `hardware_platforms`, as far as the facts tell.

    Args:
        device: Device id.
        name: The chip; empty where only the facts may know it.
        machine: What `pytest_hfaccel.hardware.machine_facts` returned.
    """
    platform, _, release = str(machine.get("os", "")).partition(" ")
    facts = _facts(device, machine)
    memory = facts.get("memory_bytes")
    return {
        "hardware_type": device.partition(":")[0],
        "device": device,
        "device_name": name or str(facts.get("name") or ""),
        "platform": platform,
        "platform_version": release,
        "driver_version": str(machine.get("drivers", {}).get(device, "")),
        "memory_gb": round(memory / 2**30, 1) if memory else None,
        "compute_units": facts.get("cores"),
        "metadata": as_json(facts),
    }


def _facts(device: str, machine: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the machine's facts say of a device; without what changes from run to run."""
    if device == "cpu":
        facts: Mapping[str, Any] = machine.get("cpu", {})
    else:
        facts = next((each for each in machine.get("devices", ()) if each.get("device") == device), {})
    return {key: value for key, value in facts.items() if key != "available_bytes"}
