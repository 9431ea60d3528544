"""Intel GPUs and NPUs, from the kernel's device tree in sysfs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_INTEL = "0x8086"
"""Intel's PCI vendor id."""


@dataclass(frozen=True)
class IntelDevices:
    """What the kernel shows of Intel's accelerators.

    Attributes:
        gpus: PCI device ids, e.g. `0x56a0`, one per render node.
        npus: PCI device ids, one per accel node.
    """

    gpus: tuple[str, ...]
    npus: tuple[str, ...]


def list_intel(root: Path = Path("/")) -> IntelDevices:
    """Read the kernel's render and accel nodes.

    Args:
        root: Where `/sys` is looked for.
    """
    return IntelDevices(_of_intel(root / "sys/class/drm", "renderD*"), _of_intel(root / "sys/class/accel", "accel*"))


def _of_intel(folder: Path, pattern: str) -> tuple[str, ...]:
    nodes = sorted(folder.glob(pattern))
    return tuple(_read(node / "device/device") for node in nodes if _read(node / "device/vendor") == _INTEL)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
