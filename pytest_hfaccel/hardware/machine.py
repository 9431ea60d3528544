"""The facts of a machine that every report carries."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.hardware.cpu_facts import read_cpu
from pytest_hfaccel.hardware.probe import probe_devices

PACKAGES = ("pytest-hfaccel", "torch", "transformers", "tokenizers", "openvino", "safetensors", "numpy", "pytest")
"""The packages whose versions results depend on."""


def machine_facts(report: HardwareReport | None = None) -> dict[str, Any]:
    """Return what results depend on, as plain JSON; the machine's and the user's names are not part of it.

    Args:
        report: Devices that have been probed already.

    Returns:
        `os`, `architecture`, `python`, `cpu` (see `CpuFacts`), `devices` (those present), `best`, `drivers` (by
        device) and `versions` (by package; `None` when not installed).
    """
    report = probe_devices() if report is None else report
    present = [presence for presence in report.presences if presence.present]
    return {
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "cpu": read_cpu().to_json(),
        "devices": [presence.to_json() for presence in present if presence.device.kind != "cpu"],
        "best": report.best().id,
        "drivers": {p.device.id: p.details["driver"] for p in present if "driver" in p.details},
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
