"""What is compared: a run, from its journal, or what the benchmark database knows of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.config import expand_path
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellKey, CellResult, Ended
from pytest_hfaccel.reporting.journal import JOURNAL, read_journal
from pytest_hfaccel.reporting.runs import LATEST, find_run, latest_run

HISTORY_RUNS = 20
"""Runs of the database that a run is compared with: the newest ones before it."""
_DATABASES = (".duckdb", ".db")

PointKey = tuple[str, str, str, str, int, int, str]
"""Model, device, dtype, weights, batch, length, mode: two measurements with the same key can be compared."""


@dataclass
class ComparedRun:
    """One side of a comparison.

    Attributes:
        source: Where it was read from, as the user named it.
        id: The run's id; empty for history.
        header: What its reports say of it: `machine`, `versions`, `options`, `commit` and `run`.
        results: The records of its cells; of history the newest record of each cell.
        points: What was measured, each key with the measurements of one run, or of several of the history.
        runs: How many runs these are.
        is_complete: Whether the run came to its end.
        problems: What of it could not be read.
    """

    source: str
    id: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)
    results: dict[CellKey, CellResult] = field(default_factory=dict)
    points: dict[PointKey, list[Measurement]] = field(default_factory=dict)
    runs: int = 1
    is_complete: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def is_history(self) -> bool:
        """Whether it is what a database knows, not one run."""
        return not self.id

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form that `comparison.json` has of it."""
        about = self.header.get("run", {})
        return {
            "kind": "history" if self.is_history else "run",
            "source": self.source,
            "id": self.id,
            "started": about.get("started", ""),
            "command": about.get("command", ""),
            "commit": self.header.get("commit"),
            "machine": dict(self.header.get("machine") or {}),
            "versions": dict(self.header.get("versions") or {}),
            "runs": self.runs,
            "cells": len(self.results),
            "measurements": len(self.points),
            "complete": self.is_complete,
        }


def run_of(header: Mapping[str, Any], results: Sequence[CellResult], *, source: str, run_id: str) -> ComparedRun:
    """Return the run that these records make, as it is known at its end."""
    found = ComparedRun(source, run_id, header)
    for result in results:
        found.results[result.key] = result
        for measured in _measurements_of(result):
            found.points.setdefault(point_key(measured), []).append(measured)
    return found


def find_side(text: str, reports: Path, option: str) -> Path:
    """Return the journal, or the benchmark database, that a text names.

    Args:
        text: A journal, a run's folder, a directory of reports (its latest run), a run's id or its number, `latest`,
            or a benchmark database.
        reports: The directory in which ids, numbers and the latest run are looked up.
        option: What the message of an error begins with.

    Raises:
        ConfigError: There is no such run.
    """
    path = expand_path(text, option)
    if path.is_file():
        return path
    if text != LATEST:
        # A directory of reports whose links did not survive a copy, such as an artifact of CI.
        latest = None if (path / JOURNAL).exists() else latest_run(path)
        return (latest or find_run(reports, text, option)) / JOURNAL
    latest = latest_run(reports)
    if latest is None:
        raise ConfigError(
            f"{option}={text}: there is no run in {reports}.", hint="Name a run's folder, or another directory."
        )
    return latest / JOURNAL


def read_side(text: str, reports: Path, *, option: str, before: str = "") -> ComparedRun:
    """Read a run or a history; see `find_side`.

    Args:
        text: What names it.
        reports: The directory in which ids, numbers and the latest run are looked up.
        option: What the message of an error begins with.
        before: Of a history, only runs that began before this time (ISO 8601) count; all when empty.

    Raises:
        ConfigError: There is no such run, or it cannot be read.
    """
    journal = find_side(text, reports, option)
    if journal.suffix in _DATABASES:
        return _read_history(journal, before)
    lines = read_journal(journal)
    if not lines.header:
        problem = lines.problems[0] if lines.problems else "it is empty"
        raise ConfigError(
            f"{option}={text}: {journal} is no journal of a run: {problem}",
            hint="Name a run's folder, its journal, its id (`hfaccel runs` lists them) or a database (*.duckdb).",
        )
    run_id = str(lines.header.get("run", {}).get("id") or journal.parent.name)
    found = run_of(lines.header, lines.cells, source=text, run_id=run_id)
    found.is_complete = lines.end.get("ended", Ended.INTERRUPTED if not lines.end else Ended.FINISHED) == Ended.FINISHED
    found.problems = lines.problems
    return found


def point_key(measured: Measurement) -> PointKey:
    """Return what two measurements must have in common to be compared."""
    return (
        *(measured.model, measured.device, measured.dtype, measured.weights),
        *(measured.batch, measured.length, measured.mode),
    )


def _measurements_of(result: CellResult) -> Iterator[Measurement]:
    for check in result.checks:
        for plain in check.measures.get("measurements", ()):
            yield Measurement.from_json(plain)


def _read_history(path: Path, before: str) -> ComparedRun:
    from pytest_hfaccel.history import BenchmarkDatabase

    runs = BenchmarkDatabase(path, create=False).recent_runs(HISTORY_RUNS, before=before)
    found = ComparedRun(str(path), runs=len(runs))
    for run in runs:  # the oldest first: the newest record of a cell stays
        found.header = {
            "machine": run.machine,
            "versions": run.versions,
            "commit": run.git_commit or None,
            "run": {"started": str(run.started_at), "command": run.command_line},
        }
        for result in run.cells:
            found.results[result.key] = result
        for measured in run.measurements:
            found.points.setdefault(point_key(measured), []).append(measured)
    return found
