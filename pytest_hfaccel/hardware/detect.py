"""The detector's questions as functions, for a single answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypedDict

from pytest_hfaccel.hardware.detector import HardwareDetector


class AvailableHardware(TypedDict):
    """What a machine has.

    Attributes:
        hardware: Every kind of hardware and whether it is available.
        details: `device_count` and `devices` of each kind that is available.
        errors: Why something is not available, or was not taken, by kind or device id.
        best_available: The preferred kind.
        torch_device: torch's device for it.
    """

    hardware: dict[str, bool]
    details: dict[str, dict[str, Any]]
    errors: dict[str, str]
    best_available: str
    torch_device: str


def detect_available_hardware(
    cache_file: str | os.PathLike[str] | None = None,
    force_refresh: bool = False,
    preferred_device_index: int = 0,
    priority_list: Sequence[str] | None = None,
) -> AvailableHardware:
    """Detect the hardware of this machine.

    Args:
        cache_file: File in which the runtimes' answers are kept.
        force_refresh: Ask the runtimes whatever that file says.
        preferred_device_index: Which of several devices `torch_device` names; where it is not there, the first is
            taken and `errors` says so.
        priority_list: Kinds of hardware, wanted ones first (default: `DEFAULT_PRIORITY`).

    Raises:
        ConfigError: `priority_list` names something that is not a kind of hardware.
    """
    detector = HardwareDetector(cache_file, force_refresh)
    torch_device = detector.get_torch_device_with_priority(priority_list, preferred_device_index)
    return AvailableHardware(
        hardware=detector.get_available_hardware(),
        details=detector.get_hardware_details(),
        errors=detector.get_errors(),
        best_available=detector.get_hardware_by_priority(priority_list),
        torch_device=torch_device,
    )


def get_hardware_by_priority(priority_list: Sequence[str] | None = None) -> str:
    """As `HardwareDetector.get_hardware_by_priority`."""
    return HardwareDetector().get_hardware_by_priority(priority_list)


def get_torch_device_with_priority(priority_list: Sequence[str] | None = None, preferred_index: int = 0) -> str:
    """As `HardwareDetector.get_torch_device_with_priority`."""
    return HardwareDetector().get_torch_device_with_priority(priority_list, preferred_index)


def get_cuda_details() -> dict[str, Any]:
    """As `HardwareDetector.get_cuda_details`."""
    return HardwareDetector().get_cuda_details()
