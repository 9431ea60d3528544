"""Stored classifications: one JSON file, shared by any number of processes.

    {"gpt2": {"model_name": "gpt2", "family": "text_generation", ...}}

A writer holds a lock file beside it while it reads, changes and replaces it, so that none loses another's entry and a
reader always sees a whole file. A damaged file is moved aside, never overwritten.
"""

from __future__ import annotations

import json
import os
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from filelock import FileLock

from pytest_hfaccel.classify.records import Classification
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file

_REQUIRED = ("model_name", "family", "subfamily", "confidence", "subfamily_confidence", "source", "reason", "analyses")
_LOCK_TIMEOUT_S = 30.0


class DamagedDatabaseWarning(UserWarning):
    """A database could not be read and was moved aside."""


class ClassificationDatabase:
    """Classifications by model name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._models: dict[str, Classification] = {}

    def get(self, model_name: str) -> Classification | None:
        """Return what is stored for a model."""
        stamp = _stamp(self.path)
        if stamp != self._seen:
            try:
                self._models = _load(self.path)
            except ValueError:
                with self._lock():
                    self._models = self._load_or_move_aside()
            self._seen = stamp
        return self._models.get(model_name)

    def put(self, model_name: str, classification: Classification) -> None:
        """Store or replace the entry of a model.

        Raises:
            ConfigError: The file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock():
                models = {**self._load_or_move_aside(), model_name: classification}
                replace_file(self.path, json.dumps(models, indent=2))
        except OSError as error:
            raise ConfigError(
                f"{self.path}: the model database cannot be written: {error}",
                hint="Name a writable file as model_db_path (--db).",
            ) from error

    def _lock(self) -> FileLock:
        return FileLock(f"{self.path}.lock", timeout=_LOCK_TIMEOUT_S)

    def _load_or_move_aside(self) -> dict[str, Classification]:
        """Read the file; move it aside when it is damaged. The caller has the lock."""
        try:
            return _load(self.path)
        except ValueError as error:
            moved = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            self.path.rename(moved)
            warnings.warn(
                f"{self.path}: the model database is damaged ({error}). Moved to {moved.name}; a new one begins.",
                DamagedDatabaseWarning,
                stacklevel=2,
            )
            return {}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is replaced."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _load(path: Path) -> dict[str, Classification]:
    """Read the file; no file and one without content are empty databases.

    Raises:
        ValueError: It is not JSON (that includes bytes that are no UTF-8), or not of this form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    models = json.loads(text) if text.strip() else {}
    if not isinstance(models, dict):
        raise ValueError("expected an object of classifications by model name")
    for name, entry in models.items():
        missing = [key for key in _REQUIRED if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ValueError(f"{name!r} lacks {', '.join(missing)}")
    return cast("dict[str, Classification]", models)
