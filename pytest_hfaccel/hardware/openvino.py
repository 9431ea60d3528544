"""OpenVINO's devices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.intel import list_intel
from pytest_hfaccel.hardware.xpu import can_load

_GPU_LIBRARY = "libOpenCL.so.1"


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
    package = _installed() if package is None else package
    if package is None:
        reason = "openvino is not installed; install pytest-hfaccel[openvino]"
        return [Presence(Device("openvino", target), False, reason) for target in ("CPU", "GPU", "NPU")]
    version = _version()
    found = [
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
        return [*found, *(Presence(Device("openvino", target), False, reason) for target in ("GPU", "NPU"))]
    intel = list_intel(root)
    gpu_problem = "" if loads(_GPU_LIBRARY) else f"the OpenCL loader ({_GPU_LIBRARY}) is not installed"
    return [
        *found,
        *_probe("GPU", intel.gpus, package, gpu_problem, "/sys/class/drm"),
        *_probe("NPU", intel.npus, package, "", "/sys/class/accel"),
    ]


def _probe(target: str, ids: Iterable[str], package: Path, problem: str, where: str) -> list[Presence]:
    ids = tuple(ids)
    first = Device("openvino", target)
    if not ids:
        return [Presence(first, False, f"no Intel {target} (the kernel lists none in {where})")]
    if not _plugin(package, target.lower()):
        problem = f"openvino has no {target} plugin"
    if problem:
        reason = f"an Intel {target} is here, but {problem}"
        return [Presence(first, False, reason, details={"pci_device": ids[0]})]
    names = [target] if len(ids) == 1 else [f"{target}.{index}" for index in range(len(ids))]
    return [
        Presence(
            Device("openvino", name), True, "Intel's kernel driver", f"Intel {target}", details={"pci_device": id_}
        )
        for name, id_ in zip(names, ids, strict=True)
    ]


def _plugin(package: Path, device: str) -> bool:
    return any((package / "libs").glob(f"*openvino_intel_{device}_plugin*")) or any(
        (package / "libs").glob(f"*openvino_arm_{device}_plugin*")
    )


def _installed() -> Path | None:
    spec = find_spec("openvino")
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("openvino")
    except PackageNotFoundError:
        return "(version not known)"
