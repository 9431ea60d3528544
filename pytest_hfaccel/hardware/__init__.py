"""What hardware this machine has, in two steps: cheap probes at collection, confirmation by the runtimes later.

report = probe_devices()              # milliseconds; imports no runtime, starts no process
report.best(), report.find(Device.parse("cuda:0")).reason
confirm_devices(report.present())     # seconds; loads the runtimes and computes on each device

Both steps at once, by kind of hardware (`docs/hardware_detection.md`):

detector = HardwareDetector(cache_file="hardware.json")
detector.get_hardware_by_priority([CUDA, MPS, CPU])
"""

from __future__ import annotations

from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.hardware.cache import HardwareCacheWarning
from pytest_hfaccel.hardware.comprehensive import detect_hardware_with_comprehensive_checks
from pytest_hfaccel.hardware.confirm import confirm_devices
from pytest_hfaccel.hardware.detect import (
    AvailableHardware,
    detect_available_hardware,
    get_cuda_details,
    get_hardware_by_priority,
    get_torch_device_with_priority,
)
from pytest_hfaccel.hardware.detector import HardwareDetector
from pytest_hfaccel.hardware.kinds import (
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
)
from pytest_hfaccel.hardware.machine import machine_facts
from pytest_hfaccel.hardware.probe import probe_devices

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
    "detect_available_hardware",
    "detect_hardware_with_comprehensive_checks",
    "get_cuda_details",
    "get_hardware_by_priority",
    "get_torch_device_with_priority",
    "machine_facts",
    "probe_devices",
]
