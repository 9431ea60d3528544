"""The first step: which devices are there, by cheap signs."""

from __future__ import annotations

from pathlib import Path

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.core.presence import HardwareReport, Presence, report_of
from pytest_hfaccel.core.spec import CPU
from pytest_hfaccel.hardware.browser import probe_browser
from pytest_hfaccel.hardware.cpu_facts import read_cpu
from pytest_hfaccel.hardware.cuda import probe_cuda
from pytest_hfaccel.hardware.mps import probe_mps
from pytest_hfaccel.hardware.openvino import probe_openvino
from pytest_hfaccel.hardware.rocm import probe_rocm
from pytest_hfaccel.hardware.torch_build import installed_torch
from pytest_hfaccel.hardware.xpu import probe_xpu


def probe_devices(root: Path = Path("/"), backends: Backends | None = None) -> HardwareReport:
    """Look for every kind of device without importing a runtime or starting a process; takes milliseconds.

    What it finds is likely usable; the backend confirms it when the first model is loaded (`confirm_devices`).

    Args:
        root: Where `/proc`, `/sys` and `/dev` are looked for.
        backends: Third-party ones among them are asked for their devices (default: those from entry points).
    """
    build = installed_torch()
    cpu = _probe_cpu(root)
    return report_of(
        [
            cpu,
            *probe_cuda(build),
            *probe_rocm(build, root),
            *probe_mps(build, memory_bytes=cpu.memory_bytes),
            *probe_xpu(build, root),
            *probe_openvino(cpu, root),
            *probe_browser(),
            *(Backends() if backends is None else backends).probe(),
        ]
    )


def _probe_cpu(root: Path) -> Presence:
    facts = read_cpu(root)
    cores = f"{facts.cores} core{'s' if facts.cores > 1 else ''}"
    reason = f"{cores}; {', '.join(facts.flags)}" if facts.flags else cores
    return Presence(CPU, True, reason, facts.name, facts.memory_bytes, facts.to_json())
