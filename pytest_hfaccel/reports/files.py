"""Files that are replaced as a whole, and removed only when they are ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.atomic import replace_file
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports.envelope import SCHEMA_PREFIX


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader sees the old one or the new one, never a part.

    Raises:
        ConfigError: The file cannot be written; the old one, if there was one, still stands.
    """
    try:
        replace_file(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written: {error.strerror}",
            hint="The finished cells are in the journal. Free space or change the permissions, or choose another "
            "directory with --hf-reports.",
        ) from error


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
