"""AMD GPUs, from the kernel driver's topology in sysfs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.torch_build import TorchBuild
from pytest_hfaccel.hardware.visibility import visibility_variables, visible_devices

_FIRST = Device("rocm", "0")
_DEVICE_MEMORY = ("1", "2")
"""Heap types of the GPU's own memory: HSA_MEM_HEAP_TYPE_FB_PUBLIC and _PRIVATE (kfd's hsakmttypes.h)."""


@dataclass(frozen=True)
class AmdGpu:
    """A GPU node of the kernel driver.

    Attributes:
        architecture: LLVM's name, e.g. `gfx90a`.
        unique_id: `GPU-<16 hexadecimal digits>`, as `ROCR_VISIBLE_DEVICES` takes it.
        memory_bytes: Its own memory.
    """

    architecture: str
    unique_id: str
    memory_bytes: int


def probe_rocm(build: TorchBuild, root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> list[Presence]:
    """Look for AMD GPUs.

    Args:
        build: The installed torch.
        root: Where `/sys` and `/dev` are looked for.
        environ: Environment to read instead of `os.environ`.
    """
    gpus = list_gpus(root)
    if not gpus:
        return [Presence(_FIRST, False, "no AMD GPU (the kernel driver amdgpu lists none in /sys/class/kfd)")]
    seen = f"{len(gpus)} AMD GPU{'s are' if len(gpus) > 1 else ' is'} present"
    visible = visible_devices(
        len(gpus),
        visibility_variables("rocm"),
        os.environ if environ is None else environ,
        [gpu.unique_id for gpu in gpus],
    )
    problem = _no_access(root) or build.why_not("rocm") or ("" if visible.order else visible.reason)
    if problem:
        return [Presence(_FIRST, False, f"{seen}, but {problem}", gpus[0].architecture, gpus[0].memory_bytes)]
    return [
        Presence(
            Device("rocm", str(number)),
            True,
            "amdgpu driver" + (f"; {visible.reason}" if visible.reason else ""),
            f"AMD {gpus[index].architecture}",
            gpus[index].memory_bytes,
            {"architecture": gpus[index].architecture, "unique_id": gpus[index].unique_id},
        )
        for number, index in enumerate(visible.order)
    ]


def list_gpus(root: Path = Path("/")) -> list[AmdGpu]:
    """Return the kernel driver's GPU nodes, in its order; nodes without SIMD units are CPUs."""
    nodes = (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    gpus = []
    for file in sorted(nodes, key=lambda path: int(path.parent.name)):
        properties = _properties(file)
        if int(properties.get("simd_count", "0")) > 0:
            gpus.append(
                AmdGpu(
                    _architecture(int(properties.get("gfx_target_version", "0"))),
                    f"GPU-{int(properties.get('unique_id', '0')):016x}",
                    _memory(file.parent),
                )
            )
    return gpus


def _architecture(version: int) -> str:
    """Return LLVM's name for kfd's number: 90010 is major 9, minor 0, stepping 10: gfx90a."""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}"


def _memory(node: Path) -> int:
    banks = [_properties(file) for file in node.glob("mem_banks/*/properties")]
    return sum(int(bank["size_in_bytes"]) for bank in banks if bank.get("heap_type") in _DEVICE_MEMORY)


def _properties(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}  # the kernel hides nodes that a container was not given
    return dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)


def _no_access(root: Path) -> str:
    device = root / "dev/kfd"
    if not device.exists():
        return "/dev/kfd is missing (in a container: --device=/dev/kfd --device=/dev/dri)"
    if not os.access(device, os.R_OK | os.W_OK):
        return "/dev/kfd may not be opened by this user (add it to the groups render and video)"
    return ""
