"""How long tests and cells take: as earlier runs recorded it, and an estimate for cells that no run has seen.

Files have pytest-split's format: a JSON object of seconds by node id, setup and teardown included. Journals are read,
too; those of versions before 0.2 know the seconds of checks and of loading, without what happens in between.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import CellKey, CellResult, Status
from pytest_hfaccel.distributed.selection import SelectedCell
from pytest_hfaccel.reporting.journal import JournalContents, read_journal
from pytest_hfaccel.reporting.runs import find_journals

DURATIONS = ".test_durations"
"""The name that pytest-split gives its file."""

RECORDED = "recorded"
UNKNOWN_SECONDS = 10.0
"""The estimate for a cell when nothing at all has been recorded: about what a tiny model takes, loading included."""

UNKNOWN_FULL_SIZE_SECONDS = 60.0
"""The same for a cell with real or random weights of the real size: about what whisper-tiny.en, of 38 million
parameters, takes on two cores. It decides little but the order: such a model comes before tiny ones."""

_Likeness = tuple[bool, tuple[str, ...]]
"""Whether cells are of real size, and what else they have in common."""

_SAY_NOTHING = frozenset({Status.UNAVAILABLE, Status.INCOMPLETE, Status.CRASHED, Status.TIMEOUT, Status.INFRA_ERROR})
"""Statuses of cells whose seconds say nothing about how long they take when they run to their end."""


@dataclass
class Durations:
    """What is recorded.

    Attributes:
        tests: Seconds by node id.
        cells: Seconds by module and cell, of journals that do not know the seconds of tests.
    """

    tests: dict[str, float] = field(default_factory=dict)
    cells: dict[CellKey, float] = field(default_factory=dict)

    def add_journal(self, journal: JournalContents) -> None:
        """Add what a run has measured."""
        for result in journal.results:
            if result.status in _SAY_NOTHING:
                continue
            self.cells[result.key] = _seconds_of(result)
            self.tests.update(journal.durations.get(result.key, {}))

    def recorded_seconds(self, cell: SelectedCell) -> float | None:
        """Return how long a cell takes; `None` where that is not recorded.

        Where only some of its tests are, the others are taken to last as long as these do on average.
        """
        known = [self.tests[test] for test in cell.tests if test in self.tests]
        if known:
            return statistics.fmean(known) * len(cell.tests)
        return self.cells.get((cell.module, cell.cell))


def _seconds_of(result: CellResult) -> float:
    return sum(check.seconds for check in result.checks) + sum(result.timings.values())


def seconds_of_cells(cells: Sequence[SelectedCell], durations: Durations) -> list[tuple[float, str]]:
    """Return for each cell how long it takes, and whether that is recorded or what it is estimated from.

    The estimate is the median of the recorded cells of the same architecture on the same device, else of all cells of
    its device, else of all cells; a tiny checkpoint says nothing about one of real size, nor the other way round. It is
    `UNKNOWN_SECONDS`, or `UNKNOWN_FULL_SIZE_SECONDS`, where nothing is recorded.
    """
    recorded = [durations.recorded_seconds(cell) for cell in cells]
    known: dict[_Likeness, list[float]] = defaultdict(list)
    for cell, seconds in zip(cells, recorded, strict=True):
        if seconds is not None:
            for likeness in _likenesses(cell):
                known[likeness].append(seconds)
    return [
        _estimate(cell, known) if seconds is None else (seconds, RECORDED)
        for cell, seconds in zip(cells, recorded, strict=True)
    ]


def _likenesses(cell: SelectedCell) -> list[_Likeness]:
    """What a cell has in common with others, closest first."""
    alike = ((cell.architecture, cell.device), (cell.device,), ())
    return [(cell.is_full_size, facts) for facts in alike]


def _estimate(cell: SelectedCell, known: Mapping[_Likeness, Sequence[float]]) -> tuple[float, str]:
    for likeness in _likenesses(cell):
        if likeness in known:
            of = " on ".join(likeness[1]) or "all cells"
            return statistics.median(known[likeness]), f"estimated: median of {len(known[likeness])} of {of}"
    unknown = UNKNOWN_FULL_SIZE_SECONDS if cell.is_full_size else UNKNOWN_SECONDS
    return unknown, "estimated: nothing is recorded"


def read_durations(paths: Iterable[Path]) -> Durations:
    """Read files of pytest-split's format and journals; of a test in several, the last one counts.

    Args:
        paths: Files, folders of runs, or directories of reports.

    Raises:
        ConfigError: One is missing, or is neither.
    """
    found = Durations()
    for path in paths:
        journals = find_journals(path) if path.is_dir() else [path] if path.suffix == ".jsonl" else []
        for journal in journals:
            found.add_journal(read_journal(journal))
        if not journals:
            found.tests.update(read_split_file(path))
    return found


def read_split_file(path: Path) -> dict[str, float]:
    """Read a file of pytest-split: an object of seconds by node id, or, from its first versions, a list of pairs.

    Raises:
        ConfigError: It cannot be read, or is something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(test): float(seconds) for test, seconds in dict(data).items()}
    except OSError as error:
        raise ConfigError(f"{path}: the durations cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: these are no durations: {error}.",
            hint="A file of durations is a JSON object of seconds by node id, as `pytest --store-durations` of "
            "pytest-split and `hfaccel merge --durations` write it.",
        ) from error


def write_split_file(path: Path, tests: Mapping[str, float]) -> int:
    """Add durations to a file of pytest-split's format, and return how many it has now.

    Raises:
        ConfigError: It cannot be written, or what is there is something else.
    """
    known = read_split_file(path) if path.exists() else {}
    merged = {**known, **{test: round(seconds, 6) for test, seconds in tests.items()}}
    try:
        replace_file(path, json.dumps(merged, sort_keys=True, indent=4) + "\n")
    except OSError as error:
        raise ConfigError(f"{path}: the durations cannot be written: {error.strerror}.") from error
    return len(merged)
