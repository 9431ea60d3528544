"""The hardware detector of the original guide (`docs/hardware_detection.md`), over `pytest_hfaccel.hardware`.

A kind of hardware is available only when its runtime was loaded and has computed something. Sizes in GB and MB count
2**30 and 2**20 bytes.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from threading import Lock
from typing import Any, TypedDict

from pytest_hfaccel.compat.device_choice import incompatibility, is_emulated
from pytest_hfaccel.core.devices import BEST_FIRST, HARDWARE_KINDS, TORCH_KINDS, kind_named, require_kinds
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.confirm import Confirm, Probe, confirm_devices, confirmed_report
from pytest_hfaccel.hardware.cpu import read_cpu
from pytest_hfaccel.hardware.probe import probe_devices

HARDWARE_TYPES = HARDWARE_KINDS
"""All kinds a detection answers for, best first."""
CPU, CUDA, ROCM, XPU, MPS = "cpu", "cuda", "rocm", "xpu", "mps"
OPENVINO, WEBGPU, WEBNN, QUALCOMM = "openvino", "webgpu", "webnn", "qualcomm"
_PREFERRED = {name.partition(":")[0] for name in BEST_FIRST}
DEFAULT_PRIORITY = tuple(kind for kind in HARDWARE_KINDS if kind in _PREFERRED)
"""The guide's order of preference. What runs in a browser is chosen only by name."""

GB = 2**30
_DTYPES = ("fp32", "bf16", "fp16")
_NO_PROBE = {QUALCOMM: "no backend in this version runs models on Qualcomm's accelerators"}


class HardwareDetector:
    """What hardware this machine has, detected at first use; may be used by several threads.

    Detection takes seconds where there is more than a CPU; with a cache, milliseconds from the second time on.

    Args:
        cache_file: File in which the runtimes' answers are kept.
        force_refresh: Ask the runtimes whatever that file says.
        probe: Looks for devices by cheap signs (default: `probe_devices`).
        confirm: Has devices compute something (default: `confirm_devices`).
    """

    def __init__(
        self,
        cache_file: str | os.PathLike[str] | None = None,
        force_refresh: bool = False,
        *,
        probe: Probe | None = None,
        confirm: Confirm | None = None,
    ) -> None:
        self._cache_file, self._force_refresh = cache_file, force_refresh
        self._probe, self._confirm = probe or probe_devices, confirm or confirm_devices
        self._lock = Lock()
        self._report: HardwareReport | None = None
        self._index_errors: dict[str, str] = {}

    @property
    def report(self) -> HardwareReport:
        """Every device that was looked for; present are those whose runtime answered."""
        with self._lock:
            if self._report is None:
                self._report = confirmed_report(
                    self._cache_file, self._force_refresh, probe=self._probe, confirm=self._confirm
                )
            return self._report

    def get_available_hardware(self) -> dict[str, bool]:
        """Return every kind of hardware and whether it is available; an emulated device is not hardware."""
        return {kind: bool(self._present(kind)) for kind in HARDWARE_KINDS}

    def get_hardware_details(self) -> dict[str, dict[str, Any]]:
        """Return `device_count` and `devices` of each kind that is available.

        Each device has `device` (its id), `name`, `total_memory` (GB; `None` when not known), `reason` (how it is known
        to be there) and what its driver and runtime say about it.
        """
        return {kind: self._details(kind) for kind, available in self.get_available_hardware().items() if available}

    def get_cuda_details(self) -> dict[str, Any]:
        """Return `available`, `device_count`, `devices` and `reason`, which is empty when CUDA is available."""
        reason = "" if self.is_available(CUDA) else self.get_errors()[CUDA]
        return {"available": not reason, **self._details(CUDA), "reason": reason}

    def get_errors(self) -> dict[str, str]:
        """Return why something is not available or was not taken: by kind of hardware, or by device id.

        A device beside others of its kind is named only if something of it was seen: that a machine with OpenVINO has
        no NPU is no news.
        """
        errors = dict(self._index_errors)
        for kind in HARDWARE_KINDS:
            present = self._present(kind)
            absent = [p for p in self.report.presences if p.device.kind == kind and p not in present]
            if present:
                errors.update((p.device.id, _absence_reason(p)) for p in absent if p.name or p.details)
            else:
                reasons = dict.fromkeys(map(_absence_reason, absent))
                errors[kind] = "; ".join(reasons) or _NO_PROBE.get(kind, "it is not looked for on this machine")
        return errors

    def is_available(self, hardware_type: str) -> bool:
        """Whether a kind of hardware is available.

        Raises:
            ConfigError: There is no such kind.
        """
        (kind,) = require_kinds([hardware_type], "hardware_type")
        return bool(self._present(kind))

    def get_best_available_hardware(self) -> str:
        """Return the first kind of `DEFAULT_PRIORITY` that is available."""
        return self.get_hardware_by_priority()

    def get_hardware_by_priority(self, priority_list: Sequence[str] | None = None) -> str:
        """Return the first kind that is available; `cpu` when none of them is.

        Args:
            priority_list: Kinds of hardware, wanted ones first (default: `DEFAULT_PRIORITY`).

        Raises:
            ConfigError: One of them is not a kind of hardware.
        """
        kinds = require_kinds(DEFAULT_PRIORITY if priority_list is None else priority_list, "priority_list")
        return next((kind for kind in kinds if self._present(kind)), CPU)

    def get_torch_device(self) -> str:
        """Return torch's device for the best hardware: `cuda:0` (also on ROCm), `xpu:0`, `mps` or `cpu`."""
        return self.get_torch_device_with_priority()

    def get_device_with_index(self, preferred_index: int = 0) -> str:
        """As `get_torch_device`, of several devices this one; see `get_torch_device_with_priority`."""
        return self.get_torch_device_with_priority(preferred_index=preferred_index)

    def get_torch_device_with_priority(
        self, priority_list: Sequence[str] | None = None, preferred_index: int = 0
    ) -> str:
        """Return torch's device for the first kind that is available; `cpu` when none of them is.

        A model for OpenVINO or a browser stays on torch's CPU: their runtimes take its weights from there.

        Args:
            priority_list: Kinds of hardware, wanted ones first (default: `DEFAULT_PRIORITY`).
            preferred_index: Which of several; where it is not there, the first is taken and `get_errors` says so.

        Raises:
            ConfigError: One of the names is not a kind of hardware.
        """
        kind = self.get_hardware_by_priority(priority_list)
        devices = [presence.device for presence in self._present(kind)]
        if kind not in TORCH_KINDS or not devices:
            return CPU
        if not kind_named(kind).is_indexed:  # there is one
            return devices[0].torch_name
        wanted = Device(kind, str(preferred_index))
        if wanted in devices:
            return wanted.torch_name
        present = ", ".join(device.id for device in devices)
        with self._lock:
            reason = f"not one of those present ({present}); {devices[0].id} is taken instead"
            self._index_errors[wanted.id] = reason
        return devices[0].torch_name

    def get_compatible_hardware_types(self, model_requirements: Mapping[str, Any]) -> list[str]:
        """Return the kinds that are available and suit a model, best first.

        Args:
            model_requirements: By kind of hardware: see `incompatibility`. A kind without an entry has no requirements.

        Raises:
            ConfigError: A key is not a kind of hardware.
        """
        require_kinds(model_requirements, "model_requirements")
        return [
            kind
            for kind in HARDWARE_KINDS
            if any(not incompatibility(presence, model_requirements) for presence in self._present(kind))
        ]

    def print_summary(self, detailed: bool = False) -> None:
        """Print what is available and which of it is preferred.

        Args:
            detailed: Also print each device, and what is not available with the reason.
        """
        details, errors = self.get_hardware_details(), self.get_errors()
        lines = [f"Available hardware: {', '.join(details)}"]
        if detailed:
            lines += [f"  {_summary(device)}" for kind in details.values() for device in kind["devices"]]
        lines.append(f"Best available hardware: {self.get_best_available_hardware()}")
        lines.append(f"PyTorch device: {self.get_torch_device()}")
        if detailed and errors:
            lines += ["Not available:", *(f"  {name}: {reason}" for name, reason in errors.items())]
        print("\n".join(lines))  # noqa: T201 - printing is its purpose

    def _present(self, kind: str) -> list[Presence]:
        of_kind = (presence for presence in self.report.presences if presence.device.kind == kind)
        return [presence for presence in of_kind if presence.present and not is_emulated(presence)]

    def _details(self, kind: str) -> dict[str, Any]:
        devices = [_device_details(presence) for presence in self._present(kind)]
        return {"device_count": len(devices), "devices": devices}


class AvailableHardware(TypedDict):
    """What a machine has; `errors` says why something is not available or was not taken, by kind or device id."""

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
    """Detect the hardware of this machine; arguments and errors as for `HardwareDetector` and its methods."""
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


def detect_hardware_with_comprehensive_checks(
    cache_file: str | os.PathLike[str] | None = None, force_refresh: bool = False
) -> dict[str, Any]:
    """Detect the hardware, and have each of torch's devices compute at each dtype. Imports torch, which takes seconds.

    Returns:
        Every kind of hardware -> whether it is available; `<kind>_devices` -> its devices as in
        `HardwareDetector.get_hardware_details` (torch's have `dtypes` besides: dtype -> whether a product was right);
        `system` (what affinity and control groups leave to this process; memory in GB), `best_available`,
        `torch_device` and `errors`.
    """
    from pytest_hfaccel.backends.torch.devices import confirm_device

    detector = HardwareDetector(cache_file, force_refresh)
    available = detector.get_available_hardware()
    details = detector.get_hardware_details()
    devices = {kind: details[kind]["devices"] if is_available else [] for kind, is_available in available.items()}
    for device, dtype in product((device for kind in TORCH_KINDS for device in devices[kind]), _DTYPES):
        dtypes = device.setdefault("dtypes", {})
        with suppress(BackendUnavailable):
            dtypes[dtype] = False
            confirm_device(Device.parse(device["device"]), dtype)
            dtypes[dtype] = True
    cpu = read_cpu()
    return {
        **available,
        **{f"{kind}_devices": of_kind for kind, of_kind in devices.items()},
        "system": {
            "platform": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "python": sys.version.split()[0],
            "cpu_count": cpu.cores,
            "cpu_name": cpu.name,
            "cpu_flags": list(cpu.flags),
            "available_memory": round(cpu.available_bytes / GB, 2),
            "total_memory": round(cpu.memory_bytes / GB, 2),
        },
        "best_available": detector.get_best_available_hardware(),
        "torch_device": detector.get_torch_device(),
        "errors": detector.get_errors(),
    }


def _absence_reason(presence: Presence) -> str:
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


def _summary(device: Mapping[str, Any]) -> str:
    memory = device["total_memory"]
    facts = [device["name"], "" if memory is None else f"{memory:.1f} GB", device["reason"]]
    return f"{device['device']}: {', '.join(fact for fact in facts if fact)}"
