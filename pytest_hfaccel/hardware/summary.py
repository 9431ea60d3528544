"""A detection in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def format_summary(
    details: Mapping[str, Mapping[str, Any]],
    errors: Mapping[str, str],
    best: str,
    torch_device: str,
    *,
    detailed: bool = False,
) -> str:
    """Return the lines `HardwareDetector.print_summary` prints.

    Args:
        details: Devices by kind of hardware that is available.
        errors: Reasons by kind or device that is not.
        best: The preferred kind.
        torch_device: torch's device for it.
        detailed: Whether devices and reasons are listed.
    """
    lines = [f"Available hardware: {', '.join(details)}"]
    if detailed:
        lines += [f"  {_line(device)}" for kind in details.values() for device in kind["devices"]]
    lines += [f"Best available hardware: {best}", f"PyTorch device: {torch_device}"]
    if detailed and errors:
        lines += ["Not available:", *(f"  {name}: {reason}" for name, reason in errors.items())]
    return "\n".join(lines)


def _line(device: Mapping[str, Any]) -> str:
    memory = device["total_memory"]
    facts = [device["name"], "" if memory is None else f"{memory:.1f} GB", device["reason"]]
    return f"{device['device']}: {', '.join(fact for fact in facts if fact)}"
