"""Devices of torch that a registry file or a package describes (`core.devices.TorchDevice`), by cheap signs.

Their packages are not imported: that takes seconds, and the backend does it when the first model is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from pytest_hfaccel.core.devices import DeviceKind, described_kinds
from pytest_hfaccel.core.presence import Presence, installed_version
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.visibility import visible_devices


def probe_described(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> list[Presence]:
    """Look for the devices of every described kind: its package must be installed, and its driver's files there.

    Without `device_files` in the description there is one sign only, the package, and at least one device is assumed.

    Args:
        root: Where the driver's files are looked for.
        environ: Environment to read instead of `os.environ`.
    """
    environ = os.environ if environ is None else environ
    return [presence for kind in described_kinds() for presence in _probe(kind, root, environ)]


def _probe(kind: DeviceKind, root: Path, environ: Mapping[str, str]) -> list[Presence]:
    described = kind.torch
    assert described is not None  # noqa: S101 - see described_kinds
    first = Device(kind.name, "0")
    package = described.package.partition(".")[0]
    if package and find_spec(package) is None:
        return [Presence(first, False, f"its package {package!r} is not installed")]
    version = installed_version(package) if package else None
    reason = f"{package} {version or ''}".strip() or f"torch.{described.module}"
    count = 1
    if described.device_files:
        count = len(list(root.glob(described.device_files.lstrip("/"))))
        if not count:
            return [Presence(first, False, f"its driver has made no file {described.device_files}")]
        reason += f"; {described.device_files}"
    elif described.visible_devices:
        listed = [environ[name].split(",") for name in described.visible_devices if environ.get(name)]
        # Whoever shows device 7 has eight of them.
        numbers = [int(name) + 1 for names in listed for name in names if name.strip().isdecimal()]
        count = max((*(len(names) for names in listed), *numbers), default=1)
    visible = visible_devices(count, described.visible_devices, environ, ())
    if not visible.order:
        return [Presence(first, False, visible.reason)]
    reason += f"; {visible.reason}" if visible.reason else ""
    return [Presence(Device(kind.name, str(index)), True, reason) for index in range(len(visible.order))]
