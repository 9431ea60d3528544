"""The journal: what a run is about to do, before it does it, and each finished cell, before the next one starts.

{"type": "run", "schema": "pytest-hfaccel/journal", ...}      the run's header, the first line
{"type": "kept", "result": {...}, "run": "0006-..."}          a cell that the resumed run had finished
{"type": "start", "test": "...", "cell": "...", ...}          a test is about to start
{"type": "cell", "result": {...}, "seconds": {...}}           a cell has finished; its tests took so long
{"type": "explained", "cell": "...", "check": "...", ...}     whose doing a failure is, with `--hf-explain`
{"type": "end", "finished": "2026-01-31T12:00:00+00:00", ...} missing when the run was killed

Every line ends with a checksum of the text before it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.events import add_explanation
from pytest_hfaccel.core.files import open_new
from pytest_hfaccel.core.results import CellKey, CellResult, Ended
from pytest_hfaccel.reporting.plain import to_plain
from pytest_hfaccel.reporting.run_facts import envelope

JOURNAL = "journal.jsonl"
_CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"}$')


class Journal:
    """Writes the journal of one run.

    Args:
        path: The file; its directory is made.
        header: Plain JSON about the run.
        mode: The file's permissions; by default those the process gives to any file.
        root: A directory: paths below it are written relative to it.

    Raises:
        ConfigError: A line could not be written, also from every method: the lines before it stand, and the journal
            can go on. From here also: the file exists already.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, mode: int | None = None, root: str | None = None
    ) -> None:
        self.path = path
        self._root = root
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that a line that could not be written leaves nothing behind to be written later.
            self._file = open_new(path, mode, buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            self._write({"type": "run", **envelope("journal", header, root)})
        except BaseException:
            self._file.close()
            raise

    def keep(self, result: CellResult, run: str) -> None:
        """Write the record of a cell that the earlier run `run` had finished, so that this run can be resumed, too."""
        self._write({"type": "kept", "result": result.to_json(), "run": run})

    def start(self, test: str, **facts: Any) -> None:
        """Write that a test is about to start: if it takes the process down, the next run knows which it was.

        Args:
            test: The test's node id.
            **facts: `module`, `cell`, `check` and `decided_by` of a test of a model class.
        """
        self._write({"type": "start", "test": test, **facts})

    def append(self, result: CellResult, durations: Mapping[str, float] | None = None) -> None:
        """Write the record of a finished cell. When this returns, a killed run does not lose it.

        Args:
            result: The record.
            durations: Seconds by node id of its tests.
        """
        seconds = {"seconds": dict(durations)} if durations else {}
        self._write({"type": "cell", "result": result.to_json(), **seconds})

    def explain(self, result: CellResult, check: str, explanation: Mapping[str, Any]) -> None:
        """Write what experiments have told of a failure, after its cell."""
        names = {"module": result.module, "cell": result.cell, "check": check}
        self._write({"type": "explained", **names, "explanation": dict(explanation)})

    def close(self, finished: str = "", ended: Ended = Ended.FINISHED) -> None:
        """Write when (ISO 8601, by default now) and how the run ended; close the file. A second call does nothing."""
        if self._file.closed:
            return
        try:
            self._write(
                {"type": "end", "finished": finished or datetime.now(UTC).isoformat(timespec="seconds"), "ended": ended}
            )
        finally:
            self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        data = memoryview(journal_line(line, self._root).encode())
        end = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.seek(end)
            self._file.truncate()
            raise unwritable(self.path, error) from error


def journal_line(line: Mapping[str, Any], root: str | None = None) -> str:
    """Return a line of a journal: JSON with a checksum, and the end of the line."""
    text = json.dumps(to_plain(line, root), allow_nan=False)
    return f'{text[:-1]}, "crc": "{crc32(text.encode()):08x}"}}\n'


@dataclass
class JournalContents:
    """What a journal says.

    Attributes:
        header: The first line, without its `type`; empty when that line is damaged.
        results: The finished cells, in order.
        kept: The cells that a resumed run had finished, in order.
        starts: The tests that were started, in order: `test`, and of tests of model classes `module`, `cell`, `check`
            and `decided_by`.
        durations: By cell, the seconds of its tests by node id, setup and teardown included.
        end: The last line; empty when the run did not come to its end.
        problems: One text per line that could not be read; a killed run may leave its last line torn.
    """

    header: dict[str, Any] = field(default_factory=dict)
    results: list[CellResult] = field(default_factory=list)
    kept: list[CellResult] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    durations: dict[CellKey, dict[str, float]] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def cells(self) -> list[CellResult]:
        """The last record of each finished cell, those included that a resumed run had finished."""
        return list({result.key: result for result in (*self.kept, *self.results)}.values())

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.end)


def read_journal(path: Path) -> JournalContents:
    """Read a journal, also that of a run that was killed or still goes on.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: the journal cannot be read: {error.strerror}") from error
    found = JournalContents()
    checked = has_checksums(lines)
    for number, line in enumerate(lines, 1):
        try:
            data = read_line(line, checked)
            kind = data.pop("type")
            if kind == "run" and number == 1:
                found.header = data
            elif kind in ("cell", "kept"):
                result = CellResult.from_json(data["result"])
                (found.results if kind == "cell" else found.kept).append(result)
                if seconds := data.get("seconds"):
                    found.durations[result.key] = {str(test): float(taken) for test, taken in seconds.items()}
            elif kind == "start":
                found.starts.append({"test": data["test"], **data})
            elif kind == "explained":
                for result in found.results:
                    if result.key == (data["module"], data["cell"]):
                        add_explanation(result, data["check"], data["explanation"])
            elif kind == "end":
                found.end = data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = "is torn: the run was killed while writing it" if number == len(lines) else "is damaged"
            found.problems.append(f"{path}:{number}: this line {what} ({type(error).__name__}: {error})")
    return found


def has_checksums(lines: Sequence[bytes]) -> bool:
    """Whether each line of a file must have a checksum: earlier versions wrote none, and nor do measurements alone."""
    return any(_CHECKSUM.search(line) for line in lines[:2])


def read_line(line: bytes, has_checksum: bool) -> Any:
    """Read one line of JSON.

    Args:
        line: The line.
        has_checksum: Whether it must have one; then it is an object, and is returned without it.

    Raises:
        ValueError: It is not JSON, or its checksum is missing or another.
    """
    checksum = _CHECKSUM.search(line)
    if has_checksum:
        if checksum is None:
            raise ValueError("it has no checksum")
        if crc32(line[: checksum.start()] + b"}") != int(checksum[1], 16):
            raise ValueError("its checksum is another")
    data = json.loads(line)
    if has_checksum:
        data.pop("crc")
    return data


def unwritable(path: Path, error: OSError) -> ConfigError:
    """Describe that a file of a run cannot be written."""
    return ConfigError(
        f"{path}: the journal cannot be written: {error.strerror}",
        hint="Free space or change the permissions, or choose another directory with --hf-reports.",
    )
