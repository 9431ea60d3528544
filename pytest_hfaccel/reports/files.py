"""Files that are replaced as a whole, and removed only when they are ours."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports.envelope import SCHEMA_PREFIX


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old one or the new one, never a part.

    Raises:
        ConfigError: The file cannot be written; the old one, if there was one, still stands.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written: {error.strerror}",
            hint="The finished cells are in the journal. Free space or change the permissions, or choose another "
            "directory with --hf-reports.",
        ) from error


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same directory: a rename across disks is a copy
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(directory: Path, pattern: str, written: list[Path]) -> None:
    """Remove the reports of an earlier run: files that match, were not written now, and carry our schema's name.

    Raises:
        ConfigError: A report of an earlier run cannot be removed, so that the directory would show two runs.
    """
    for path in sorted(set(directory.glob(pattern)) - set(written)):
        if not _is_ours(path):
            continue
        try:
            path.unlink()
        except OSError as error:
            raise ConfigError(f"{path}: this report of an earlier run cannot be removed: {error.strerror}") from error


def _is_ours(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and str(data.get("schema", "")).startswith(SCHEMA_PREFIX)
