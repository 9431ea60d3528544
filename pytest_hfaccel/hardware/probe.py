"""The first step of a detection: which devices are there, by cheap signs; and the facts of the machine for reports."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.backends.browser.installed import probe_browsers
from pytest_hfaccel.core.presence import HardwareReport, Presence, installed_version
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.amd import probe_rocm
from pytest_hfaccel.hardware.cpu import read_cpu
from pytest_hfaccel.hardware.described import probe_described
from pytest_hfaccel.hardware.intel import probe_openvino, probe_xpu
from pytest_hfaccel.hardware.nvidia import probe_cuda
from pytest_hfaccel.hardware.onnx_runtime import probe_onnxruntime
from pytest_hfaccel.hardware.torch_build import TorchBuild, installed_torch, package_folder

PACKAGES = (
    "pytest-hfaccel",
    "torch",
    "transformers",
    "tokenizers",
    "openvino",
    "onnxruntime",
    "executorch",
    "safetensors",
    "numpy",
    "pytest",
)
"""The packages whose versions results depend on."""

_OLDEST_MACOS = 14
"""torch 2.9 and later need macOS 14 for MPS (torch.backends.mps)."""


def probe_devices(root: Path = Path("/"), backends: Backends | None = None) -> HardwareReport:
    """Look for every kind of device without importing a runtime or starting a process; takes milliseconds.

    What it finds is likely usable; the backend confirms it when the first model is loaded (`confirm_devices`).

    Args:
        root: Where `/proc`, `/sys` and `/dev` are looked for.
        backends: Third-party ones among them are asked for their devices (default: those from entry points).
    """
    backends = Backends() if backends is None else backends  # before the described devices, which it makes known
    build = installed_torch()
    cpu = _probe_cpu(root)
    presences = [
        cpu,
        *probe_cuda(build),
        *probe_rocm(build, root),
        *probe_mps(build, memory_bytes=cpu.memory_bytes),
        *probe_xpu(build, root),
        *probe_openvino(cpu, root),
        *probe_onnxruntime(cpu, root),
        *probe_executorch(cpu),
        *(_on_this_cpu(each, cpu) for each in probe_browsers()),
        *probe_described(root),
        *backends.probe(),
    ]
    return HardwareReport(tuple(presences))


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
        "versions": {package: installed_version(package) for package in PACKAGES},
    }


def _probe_cpu(root: Path) -> Presence:
    facts = read_cpu(root)
    cores = f"{facts.cores} core{'s' if facts.cores > 1 else ''}"
    reason = f"{cores}; {', '.join(facts.flags)}" if facts.flags else cores
    return Presence(CPU, True, reason, facts.name, facts.memory_bytes, facts.to_json())


def probe_executorch(cpu: Presence, folder_of: Callable[[str], Path | None] = package_folder) -> list[Presence]:
    """Look for ExecuTorch, whose packages all have XNNPACK.

    Args:
        cpu: The CPU, on which XNNPACK computes.
        folder_of: Returns the folder of an installed module, `None` where there is none.
    """
    device = Device("executorch", "XNNPACK")
    if folder_of("executorch") is None:
        return [Presence(device, False, "executorch is not installed; pip install 'pytest-hfaccel[executorch]'")]
    details = {"flags": cpu.details["flags"]} if "flags" in cpu.details else {}
    version = installed_version("executorch") or "(version not known)"
    return [Presence(device, True, f"executorch {version}", cpu.name, cpu.memory_bytes, details)]


def _on_this_cpu(browser: Presence, cpu: Presence) -> Presence:
    """Name the chip of what a browser computes on the CPU. WebGPU's adapter is known to the page alone."""
    return browser if browser.device.kind == "webgpu" or not browser.present else replace(browser, name=cpu.name)


def probe_mps(
    build: TorchBuild,
    system: str | None = None,
    machine: str | None = None,
    macos: str | None = None,
    memory_bytes: int | None = None,
) -> list[Presence]:
    """Look for Apple's GPU.

    Args:
        build: The installed torch; its builds for macOS on Apple silicon all have MPS.
        system: As `platform.system()`.
        machine: As `platform.machine()`.
        macos: Version of macOS.
        memory_bytes: The machine's memory, which the GPU shares.
    """
    device = Device("mps")
    system = platform.system() if system is None else system
    if system != "Darwin":
        return [Presence(device, False, "not macOS")]
    machine = platform.machine() if machine is None else machine
    if machine != "arm64":
        return [Presence(device, False, f"not Apple silicon, but {machine}")]
    macos = platform.mac_ver()[0] if macos is None else macos
    if int(macos.partition(".")[0] or 0) < _OLDEST_MACOS:
        return [Presence(device, False, f"macOS {macos} is older than {_OLDEST_MACOS}, which torch needs")]
    if not build.version:
        return [Presence(device, False, "torch is not installed")]
    return [Presence(device, True, f"Apple silicon, macOS {macos}", "Apple GPU", memory_bytes, {"macos": macos})]
