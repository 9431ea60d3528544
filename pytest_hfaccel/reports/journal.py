"""The journal: one line per finished cell, on disk before the next cell starts.

{"type": "run", "schema": "pytest-hfaccel/journal", ...}    the run's header, the first line
{"type": "cell", "result": {...}}                           one line per finished cell
{"type": "end", "finished": "2026-01-31T12:00:00+00:00"}    missing when the run was killed
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports.envelope import envelope
from pytest_hfaccel.reports.plain import to_plain
from pytest_hfaccel.results import CellResult

KEPT = 5
"""How many journals of earlier runs are kept beside the current one."""


class Journal:
    """Writes the journal of one run.

    The journal of an earlier run is renamed after the time of its last line (`journal-20260131T120000.000000Z.jsonl`);
    the newest `KEPT` of them stay.

    Args:
        path: The file, e.g. `reports/journal.jsonl`; its directory is made.
        header: Plain JSON about the run.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _set_aside(path)
            # Unbuffered, so that a line that could not be written leaves nothing behind to be written later.
            self._file = path.open("xb", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self._write({"type": "run", **envelope("journal", header)})
        except BaseException:
            self._file.close()
            raise

    def append(self, result: CellResult) -> None:
        """Write the record of a finished cell. When this returns, a killed run does not lose it.

        Raises:
            ConfigError: The line could not be written; the lines before it stand, and the journal can go on.
        """
        self._write({"type": "cell", "result": result.to_json()})

    def close(self) -> None:
        """Write that the run came to its end, and close the file. A second call does nothing.

        Raises:
            ConfigError: The line could not be written.
        """
        if self._file.closed:
            return
        try:
            self._write({"type": "end", "finished": datetime.now(UTC).isoformat(timespec="seconds")})
        finally:
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        data = memoryview((json.dumps(to_plain(line), allow_nan=False) + "\n").encode())
        end = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.seek(end)
            self._file.truncate()
            raise _unwritable(self.path, error) from error


class JournalContents(NamedTuple):
    """What a journal says.

    Attributes:
        header: The first line, without its `type`; empty when that line is damaged.
        results: The finished cells, in order.
        problems: One text per line that could not be read; a killed run may leave its last line torn.
        is_complete: Whether the run came to its end.
    """

    header: dict[str, Any]
    results: list[CellResult]
    problems: list[str]
    is_complete: bool


def read_journal(path: Path) -> JournalContents:
    """Read a journal, also that of a run that was killed or still goes on.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: the journal cannot be read: {error.strerror}") from error
    header: dict[str, Any] = {}
    results = []
    problems = []
    is_complete = False
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            kind = data.pop("type")
            if kind == "run":
                header = data
            elif kind == "cell":
                results.append(CellResult.from_json(data["result"]))
            elif kind == "end":
                is_complete = True
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = "is torn: the run was killed while writing it" if number == len(lines) else "is damaged"
            problems.append(f"{path}:{number}: this line {what} ({type(error).__name__}: {error})")
    return JournalContents(header, results, problems, is_complete)


def _set_aside(path: Path) -> None:
    if not path.exists():
        return
    stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
    number = 1
    while aside.exists():  # on a file system with coarse times
        number += 1
        aside = path.with_name(f"{path.stem}-{stamp}-{number}{path.suffix}")
    path.rename(aside)
    stamped = f"{path.stem}-[0-9]*T[0-9]*.[0-9]*Z*{path.suffix}"
    for old in sorted(path.parent.glob(stamped))[:-KEPT]:
        old.unlink()


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: the journal cannot be written: {error.strerror}",
        hint="Free space or change the permissions, or choose another directory with --hf-reports.",
    )
