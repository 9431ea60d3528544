"""What a confirmation depends on: when any of it changes, the runtimes are asked again."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.presence import HardwareReport, Presence

_PACKAGES = ("pytest-hfaccel", "torch", "openvino")
_VOLATILE = ("available_bytes",)
"""Facts that change from moment to moment and say nothing about which devices there are."""


def cache_key(probed: HardwareReport, root: Path = Path("/")) -> dict[str, Any]:
    """Return the key as plain JSON.

    All that the cheap probe sees is part of it (devices, drivers, memory, what the environment hides), so that a cache
    that contradicts the probe does not match.

    Args:
        probed: What the cheap probe sees now.
        root: Where `/proc` is looked for.
    """
    return {
        "boot": _boot(root),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{sys.version.split()[0]} in {sys.prefix}",
        "versions": {package: _version(package) for package in _PACKAGES},
        "devices": [_seen(presence) for presence in probed.presences],
    }


def _boot(root: Path) -> str:
    """What identifies the time since the machine was started: a driver may be another one afterwards."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _seen(presence: Presence) -> dict[str, Any]:
    seen = presence.to_json()
    seen["details"] = {key: value for key, value in presence.details.items() if key not in _VOLATILE}
    return seen
