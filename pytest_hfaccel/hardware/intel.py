"""Intel's GPUs and NPUs for torch and OpenVINO, from the kernel's device tree in sysfs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

from pytest_hfaccel.core.presence import Presence, installed_version
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.torch_build import TorchBuild, package_folder

_INTEL = "0x8086"
"""Intel's PCI vendor id."""
_GPUS, _NPUS = "sys/class/drm", "sys/class/accel"
_FIRST = Device("xpu", "0")
_GPU_LIBRARY = "libOpenCL.so.1"


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
    gpus = _devices_of_intel(root / _GPUS, "renderD*")
    if not gpus:
        return [Presence(_FIRST, False, "no Intel GPU (the kernel lists none in /sys/class/drm)")]
    seen = f"{len(gpus)} Intel GPU{'s are' if len(gpus) > 1 else ' is'} present"
    problem = build.why_not("xpu")
    if not problem and not loads("libze_loader.so.1"):
        problem = "Level Zero (libze_loader.so.1), which torch needs, is not installed"
    if problem:
        return [Presence(_FIRST, False, f"{seen}, but {problem}", details={"pci_device": gpus[0]})]
    return [
        Presence(Device("xpu", str(index)), True, "Level Zero", "Intel GPU", details={"pci_device": gpu})
        for index, gpu in enumerate(gpus)
    ]


def probe_openvino(
    cpu: Presence,
    root: Path = Path("/"),
    package: Path | None = None,
    loads: Callable[[str], bool] = can_load,
    platform: str = sys.platform,
) -> list[Presence]:
    """Look for OpenVINO and the devices it can use.

    Args:
        cpu: The CPU, which OpenVINO's CPU device is.
        root: Where `/sys` is looked for.
        package: Folder of the openvino package; found among the installed packages when not given.
        loads: Whether a shared library can be loaded.
        platform: As `sys.platform`.
    """
    package = package or package_folder("openvino")
    if package is None:
        reason = "openvino is not installed; install pytest-hfaccel[openvino]"
        return [Presence(Device("openvino", target), False, reason) for target in ("CPU", "GPU", "NPU")]
    version = installed_version("openvino") or "(version not known)"
    cpu_presence = [
        Presence(
            Device("openvino", "CPU"),
            True,
            f"openvino {version}",
            cpu.name,
            cpu.memory_bytes,
            {"flags": cpu.details["flags"]} if "flags" in cpu.details else {},
        )
        if _plugin(package, "cpu")
        else Presence(Device("openvino", "CPU"), False, f"openvino {version} has no CPU plugin")
    ]
    if platform != "linux":
        reason = "not looked for on this system; name it (--hf-device) and OpenVINO decides"
        return [*cpu_presence, *(Presence(Device("openvino", target), False, reason) for target in ("GPU", "NPU"))]
    gpu_problem = "" if loads(_GPU_LIBRARY) else f"the OpenCL loader ({_GPU_LIBRARY}) is not installed"
    return [
        *cpu_presence,
        *_probe("GPU", _devices_of_intel(root / _GPUS, "renderD*"), package, gpu_problem, f"/{_GPUS}"),
        *_probe("NPU", _devices_of_intel(root / _NPUS, "accel*"), package, "", f"/{_NPUS}"),
    ]


def _probe(target: str, ids: list[str], package: Path, problem: str, where: str) -> list[Presence]:
    first = Device("openvino", target)
    if not ids:
        return [Presence(first, False, f"no Intel {target} (the kernel lists none in {where})")]
    if not _plugin(package, target.lower()):
        problem = f"openvino has no {target} plugin"
    if problem:
        reason = f"an Intel {target} is present, but {problem}"
        return [Presence(first, False, reason, details={"pci_device": ids[0]})]
    names = [target] if len(ids) == 1 else [f"{target}.{index}" for index in range(len(ids))]
    return [
        Presence(
            Device("openvino", name), True, "Intel's kernel driver", f"Intel {target}", details={"pci_device": id_}
        )
        for name, id_ in zip(names, ids, strict=True)
    ]


def _plugin(package: Path, device: str) -> bool:
    return any(any((package / "libs").glob(f"*openvino_{maker}_{device}_plugin*")) for maker in ("intel", "arm"))


def has_intel_accelerator(root: Path = Path("/")) -> bool:
    """Whether the kernel lists a GPU or an NPU of Intel."""
    return bool(_devices_of_intel(root / _GPUS, "renderD*") or _devices_of_intel(root / _NPUS, "accel*"))


def _devices_of_intel(folder: Path, pattern: str) -> list[str]:
    """PCI device ids, e.g. `0x56a0`, of Intel's devices among the kernel's render or accel nodes."""
    nodes = sorted(folder.glob(pattern))
    return [_read(node / "device/device") for node in nodes if _read(node / "device/vendor") == _INTEL]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
