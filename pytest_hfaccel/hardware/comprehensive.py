"""All that can be found out about a machine: devices, the precisions they compute at, and the system."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.answers import GB
from pytest_hfaccel.hardware.cpu_facts import read_cpu
from pytest_hfaccel.hardware.detector import HardwareDetector
from pytest_hfaccel.hardware.kinds import CPU, CUDA, MPS, ROCM, XPU

_TORCH_KINDS = (CPU, CUDA, ROCM, XPU, MPS)
_DTYPES = ("fp32", "bf16", "fp16")


def detect_hardware_with_comprehensive_checks(
    cache_file: str | os.PathLike[str] | None = None, force_refresh: bool = False
) -> dict[str, Any]:
    """Detect the hardware, and have each of torch's devices compute at each dtype. Imports torch, which takes seconds.

    Args:
        cache_file: File in which the runtimes' answers are kept.
        force_refresh: Ask the runtimes whatever that file says.

    Returns:
        Every kind of hardware -> whether it is available; `<kind>_devices` -> the devices of each kind, empty where it
        is not (see `details_of`; torch's devices have `dtypes` besides: dtype -> whether a product was right);
        `system` (see `describe_system`), `best_available`, `torch_device` and `errors`.
    """
    detector = HardwareDetector(cache_file, force_refresh)
    available = detector.get_available_hardware()
    details = detector.get_hardware_details()
    devices = {kind: details[kind]["devices"] if here else [] for kind, here in available.items()}
    for kind in _TORCH_KINDS:
        for device in devices[kind]:
            device["dtypes"] = _computed_dtypes(Device.parse(device["device"]))
    return {
        **available,
        **{f"{kind}_devices": found for kind, found in devices.items()},
        "system": describe_system(),
        "best_available": detector.get_best_available_hardware(),
        "torch_device": detector.get_torch_device(),
        "errors": detector.get_errors(),
    }


def describe_system() -> dict[str, Any]:
    """Return what this process may have of the machine, control groups and affinity counted in.

    Returns:
        `platform`, `release`, `architecture`, `python`, `cpu_count` (logical CPUs it may use), `available_memory` and
        `total_memory` (GB of 2**30 bytes), `cpu_name`, `cpu_flags` (instruction sets that matter for models).
    """
    cpu = read_cpu()
    return {
        "platform": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "python": sys.version.split()[0],
        "cpu_count": cpu.cores,
        "cpu_name": cpu.name,
        "cpu_flags": list(cpu.flags),
        "available_memory": round(cpu.available_bytes / GB, 2),
        "total_memory": round(cpu.memory_bytes / GB, 2),
    }


def _computed_dtypes(device: Device) -> dict[str, bool]:
    from pytest_hfaccel.backends.torch.devices import confirm_device

    def computes(dtype: str) -> bool:
        try:
            confirm_device(device, dtype)
        except BackendUnavailable:
            return False
        return True

    return {dtype: computes(dtype) for dtype in _DTYPES}
