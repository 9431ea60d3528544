"""What hardware this machine has, in two steps: cheap probes at collection, confirmation by the runtimes later.

report = probe_devices()              # milliseconds; imports no runtime, starts no process
report.best(), report.find(Device.parse("cuda:0")).reason
confirm_devices(report.present())     # seconds; loads the runtimes and computes on each device

The detector of the original guide (`docs/hardware_detection.md`) is in `pytest_hfaccel.compat.hardware_detection`; its
names are importable from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.hardware.confirm import HardwareCacheWarning, confirm_devices, confirmed_report
from pytest_hfaccel.hardware.probe import machine_facts, probe_devices

if TYPE_CHECKING:
    from pytest_hfaccel.compat.hardware_detection import (
        CPU,
        CUDA,
        DEFAULT_PRIORITY,
        HARDWARE_TYPES,
        MPS,
        OPENVINO,
        QUALCOMM,
        ROCM,
        WEBGPU,
        WEBNN,
        XPU,
        AvailableHardware,
        HardwareDetector,
        detect_available_hardware,
        detect_hardware_with_comprehensive_checks,
        get_cuda_details,
        get_hardware_by_priority,
        get_torch_device_with_priority,
    )

__all__ = [
    "CPU",
    "CUDA",
    "DEFAULT_PRIORITY",
    "HARDWARE_TYPES",
    "MPS",
    "OPENVINO",
    "QUALCOMM",
    "ROCM",
    "WEBGPU",
    "WEBNN",
    "XPU",
    "AvailableHardware",
    "HardwareCacheWarning",
    "HardwareDetector",
    "HardwareReport",
    "Presence",
    "confirm_devices",
    "confirmed_report",
    "detect_available_hardware",
    "detect_hardware_with_comprehensive_checks",
    "get_cuda_details",
    "get_hardware_by_priority",
    "get_torch_device_with_priority",
    "machine_facts",
    "probe_devices",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("pytest_hfaccel.compat.hardware_detection"), name)
