"""Apple's GPU."""

from __future__ import annotations

import platform

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.torch_build import TorchBuild

_OLDEST_MACOS = 14
"""torch 2.9 and later need macOS 14 for MPS (torch.backends.mps)."""


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
