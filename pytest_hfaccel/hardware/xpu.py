"""Intel GPUs for torch."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.intel import list_intel
from pytest_hfaccel.hardware.torch_build import TorchBuild

_FIRST = Device("xpu", "0")


def can_load(library: str) -> bool:
    """Whether a shared library can be loaded by name."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def probe_xpu(
    build: TorchBuild,
    root: Path = Path("/"),
    loads: Callable[[str], bool] = can_load,
    platform: str = sys.platform,
) -> list[Presence]:
    """Look for Intel GPUs that torch can use.

    Args:
        build: The installed torch.
        root: Where `/sys` is looked for.
        loads: Whether a shared library can be loaded.
        platform: As `sys.platform`.
    """
    if platform == "win32":
        # No file tells of the GPU there; a torch built for XPU with Intel's driver is what can be seen.
        usable = not build.why_not("xpu") and loads("ze_loader.dll")
        reason = "Intel's driver (Level Zero) is installed" if usable else build.why_not("xpu") or "no Level Zero"
        return [Presence(_FIRST, usable, reason)]
    gpus = list_intel(root).gpus
    if not gpus:
        return [Presence(_FIRST, False, "no Intel GPU (the kernel lists none in /sys/class/drm)")]
    here = f"{len(gpus)} Intel GPU{'s are' if len(gpus) > 1 else ' is'} here"
    problem = build.why_not("xpu")
    if not problem and not loads("libze_loader.so.1"):
        problem = "Level Zero (libze_loader.so.1), which torch needs, is not installed"
    if problem:
        return [Presence(_FIRST, False, f"{here}, but {problem}", details={"pci_device": gpus[0]})]
    return [
        Presence(Device("xpu", str(index)), True, "Level Zero", "Intel GPU", details={"pci_device": gpu})
        for index, gpu in enumerate(gpus)
    ]
