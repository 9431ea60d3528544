"""Confirmations kept in a file: a JSON object of its key, when they were made, and the devices that answered.

Only devices that answered are kept: one that did not is asked again each time, for it may have been busy.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device

FORMAT = 1
MAX_AGE_S = 24 * 3600.0
"""After so long the runtimes are asked again, whatever else is unchanged."""


class HardwareCacheWarning(UserWarning):
    """A cache of confirmations was damaged, or could not be read or written."""


class ConfirmationCache:
    """The file.

    Args:
        path: Where it is; it and its folder are made at the first write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self, key: dict[str, Any]) -> list[Presence]:
        """Return the devices that answered under the same key, not too long ago; none where there is no such file.

        A damaged file is moved aside, with a warning.
        """
        try:
            content = _parse(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._warn(f"cannot be read ({error}); the hardware is detected anew")
            return []
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            self._set_aside(error)
            return []
        age = time.time() - content["time"]
        is_current = content["format"] == FORMAT and content["key"] == key and 0 <= age <= MAX_AGE_S
        return content["confirmed"] if is_current else []

    def write(self, key: dict[str, Any], confirmed: Sequence[Presence]) -> None:
        """Replace the file. Readers see the old one or the new one; a failure is a warning."""
        content = {
            "format": FORMAT,
            "time": time.time(),
            "key": key,
            "confirmed": [presence.to_json() for presence in confirmed],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, json.dumps(content, indent=2))
        except OSError as error:
            self._warn(f"cannot be written ({error}); name a writable file as cache_file")

    def _set_aside(self, problem: Exception) -> None:
        moved = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        try:
            self.path.rename(moved)
        except FileNotFoundError:
            return  # another process has set it aside
        except OSError as error:
            self._warn(f"is damaged ({problem!r}) and cannot be moved aside ({error}); the hardware is detected anew")
            return
        self._warn(f"is damaged ({problem!r}). Moved to {moved.name}; the hardware is detected anew")

    def _warn(self, problem: str) -> None:
        warnings.warn(f"{self.path}: the hardware cache {problem}.", HardwareCacheWarning, stacklevel=2)


def _parse(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError("expected an object with format, time, key and confirmed")
    return {
        "format": content["format"],
        "time": float(content["time"]),
        "key": content["key"],
        "confirmed": [_presence(entry) for entry in content["confirmed"]],
    }


def _presence(entry: dict[str, Any]) -> Presence:
    memory, details = entry["memory_bytes"], dict(entry["details"])
    if not all(isinstance(entry[field], str) for field in ("device", "reason", "name")):
        raise TypeError("device, reason and name must be text")
    if memory is not None and not isinstance(memory, int):
        raise TypeError(f"memory_bytes is {memory!r}")
    device = Device.parse(entry["device"])
    return Presence(device, entry["present"] is True, entry["reason"], entry["name"], memory, details)


def _replace(path: Path, text: str) -> None:
    """Write a new file beside the old one, then put it in its place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
