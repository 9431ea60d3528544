"""The second step of a detection: load the runtimes and compute on each device; again only when something changes.

The cache is a JSON file with its key, the time, and the devices that answered. A device that did not answer is asked
again each time: it may have been busy.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.core.devices import registered_kinds
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.presence import HardwareReport, Presence, installed_version
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.probe import probe_devices

Probe = Callable[[], HardwareReport]
Confirm = Callable[[Iterable[Device]], list[Presence]]

FORMAT = 1
MAX_AGE_S = 24 * 3600.0
"""After so long the runtimes are asked again, whatever else is unchanged."""

_PACKAGES = ("pytest-hfaccel", "torch", "openvino", "onnxruntime", "executorch")
_VOLATILE = ("available_bytes",)
"""Facts that change from moment to moment and say nothing about which devices there are."""


class HardwareCacheWarning(UserWarning):
    """A cache of confirmations was damaged, or could not be read or written."""


def confirm_devices(devices: Iterable[Device], backends: Backends | None = None) -> list[Presence]:
    """Compute a small matrix product in fp32 on each device. Loads the runtimes, which takes seconds.

    Args:
        devices: The devices.
        backends: Whom to ask (default: the built-in ones and those from entry points).

    Returns:
        One entry per device: present if the product was right, else with the reason. A device whose backend cannot
        confirm it (`fake`, some third-party kinds) is left out.
    """
    backends = Backends() if backends is None else backends
    answers = (confirm_device(device, backends) for device in devices)
    return [answer for answer in answers if answer is not None]


def confirm_device(device: Device, backends: Backends) -> Presence | None:
    """Compute a product on one device; `None` where its backend cannot."""
    try:
        confirm = getattr(backends.for_kind(device.kind), "confirm", None)
        if confirm is None:
            return None
        facts = confirm(device)
    except ImportError as error:
        return Presence(device, False, f"its runtime cannot be imported: {error}")
    except HfAccelError as error:
        return Presence(device, False, error.message)
    details = {key: value for key, value in facts.items() if key not in ("name", "memory_bytes")}
    reason = "computed a matrix product in fp32"
    return Presence(device, True, reason, str(facts.get("name", "")), facts.get("memory_bytes"), details)


def confirmed_report(
    cache_file: str | os.PathLike[str] | None = None,
    force_refresh: bool = False,
    *,
    probe: Probe = probe_devices,
    confirm: Confirm = confirm_devices,
) -> HardwareReport:
    """Return the devices of this machine, each present only if its runtime answered.

    Args:
        cache_file: File in which answers are kept, made at the first write; `None` for none.
        force_refresh: Ask whatever the file says, and write it anew.
        probe: Looks for devices by cheap signs.
        confirm: Has devices compute something.
    """
    probed = probe()
    seen = [presence.device for presence in probed.presences if presence.present and presence.device != CPU]
    path = None if cache_file is None else Path(cache_file)
    key = _cache_key(probed)
    cached = _read_cache(path, key) if path is not None and not force_refresh else []
    answers = {answer.device: answer for answer in cached if answer.present}
    unasked = [device for device in seen if device not in answers]
    if unasked:
        answers.update((answer.device, answer) for answer in confirm(unasked))
    if path is not None and (unasked or force_refresh):
        _write_cache(path, key, [answer for answer in answers.values() if answer.present])
    return HardwareReport(
        tuple(
            _combined(presence, answers.get(presence.device)) if presence.device in seen else presence
            for presence in probed.presences
        )
    )


def _combined(probed: Presence, answer: Presence | None) -> Presence:
    if answer is None:
        return replace(probed, present=False, reason="no runtime was asked: its backend cannot confirm it")
    details = {**probed.details, **answer.details}
    reason = f"{probed.reason}; {answer.reason}" if answer.present else answer.reason
    # torch's numbering may differ from the driver's (CUDA_DEVICE_ORDER), so its own name and memory go first.
    name, memory = answer.name or probed.name, answer.memory_bytes or probed.memory_bytes
    return Presence(probed.device, answer.present, reason, name, memory, details)


def _cache_key(probed: HardwareReport) -> dict[str, Any]:
    """What a confirmation depends on: what the probe sees, packages, and the boot, after which drivers may differ."""
    return {
        "boot": _boot(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{sys.version.split()[0]} in {sys.prefix}",
        "versions": {package: installed_version(package) for package in _PACKAGES},
        "devices": [_lasting(presence) for presence in probed.presences],
    }


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        import psutil

        return str(int(psutil.boot_time()))


def _lasting(presence: Presence) -> dict[str, Any]:
    details = {key: value for key, value in presence.details.items() if key not in _VOLATILE}
    return {**presence.to_json(), "details": details}


def _read_cache(path: Path, key: dict[str, Any]) -> list[Presence]:
    """Return the devices that answered under the same key, not too long ago. A damaged file is moved aside."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        confirmed = [_presence(entry) for entry in content["confirmed"]]
        age = time.time() - content["time"]
        return confirmed if content["format"] == FORMAT and content["key"] == key and 0 <= age <= MAX_AGE_S else []
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        _warn(path, f"cannot be read ({error}); the hardware is detected anew")
    except (ValueError, TypeError, KeyError, ConfigError) as error:
        _move_aside(path, error)
    return []


def _presence(entry: dict[str, Any]) -> Presence:
    memory, details = entry["memory_bytes"], dict(entry["details"])
    if not all(isinstance(entry[field], str) for field in ("device", "reason", "name")):
        raise TypeError("device, reason and name must be text")
    if memory is not None and not isinstance(memory, int):
        raise TypeError(f"memory_bytes is {memory!r}")
    device = Device.parse(entry["device"], registered_kinds())
    return Presence(device, entry["present"] is True, entry["reason"], entry["name"], memory, details)


def _write_cache(path: Path, key: dict[str, Any], confirmed: list[Presence]) -> None:
    """Replace the file. Readers see the old one or the new one; a failure is a warning."""
    content = {"format": FORMAT, "time": time.time(), "key": key, "confirmed": [each.to_json() for each in confirmed]}
    try:
        replace_file(path, json.dumps(content, indent=2))
    except OSError as error:
        _warn(path, f"cannot be written ({error}); name a writable file as cache_file")


def _move_aside(path: Path, problem: Exception) -> None:
    moved = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    try:
        path.rename(moved)
    except FileNotFoundError:
        return  # another process has moved it aside
    except OSError as error:
        _warn(path, f"is damaged ({problem!r}) and cannot be moved aside ({error}); the hardware is detected anew")
        return
    _warn(path, f"is damaged ({problem!r}). Moved to {moved.name}; the hardware is detected anew")


def _warn(path: Path, problem: str) -> None:
    warnings.warn(f"{path}: the hardware cache {problem}.", HardwareCacheWarning, stacklevel=2)
