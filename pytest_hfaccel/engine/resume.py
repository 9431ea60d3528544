"""`--hf-resume`: the finished cells of an earlier run, and which of their outcomes the resumed run reuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, format_names
from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.engine.outcome_key import what_changed
from pytest_hfaccel.reporting.journal import JOURNAL, JournalContents, read_journal
from pytest_hfaccel.reporting.runs import LATEST, find_run, is_running, latest_run

_OUTCOMES = frozenset({"checks", "incomplete", "status", "stage", "reason"})
POINT_MEASURED = "point"
"""The measure that names the point at which a check ran, if it runs at several."""


@dataclass(frozen=True)
class Unfinished:
    """The cell in whose check a run ended early.

    Attributes:
        check: The check that was running.
        survived: The checks of the cell that had run before it.
        decided_by: What decided its outcome; see `CellResult.decided_by`.
    """

    check: str
    survived: frozenset[str]
    decided_by: Mapping[str, str]


@dataclass
class EarlierRun:
    """The run before this one. Plain data: a controller hands it to its workers.

    Attributes:
        id: Its id; empty where there is none.
        finished: The records of its finished cells, those it had kept of a run before it included; only of a run that
            is resumed.
        unfinished: The cells that took the process down; empty where that cannot be told from an end that has another
            cause, as of a run with workers, which are replaced when they die.
        running: The tests it was running when it ended early: one, or one per worker.
        ended_early: Whether it neither finished nor is still in progress.
        problems: What of its journal could not be read.
    """

    id: str = ""
    finished: dict[CellKey, CellResult] = field(default_factory=dict)
    unfinished: dict[CellKey, Unfinished] = field(default_factory=dict)
    running: str = ""
    ended_early: bool = False
    problems: list[str] = field(default_factory=list)


def earlier_run(reports: Path, *, resume: str = "") -> EarlierRun:
    """Read what the latest run left behind.

    Args:
        reports: The directory of the reports.
        resume: The run to resume: `latest`, an id, the number an id begins with, or a run's folder.
            When empty, only how the latest run ended is looked at.

    Raises:
        ConfigError: The run does not exist, is still in progress, or its journal cannot be read or has lost its
            first line.
    """
    folder = find_run(reports, resume, "--hf-resume") if resume not in ("", LATEST) else latest_run(reports)
    if folder is None:
        return EarlierRun(problems=[f"there is no run in {reports} to continue: everything is run"] if resume else [])
    journal = folder / JOURNAL
    if is_running(folder):
        if resume:
            raise ConfigError(
                f"--hf-resume: the run {folder.name} is still in progress.",
                hint="Wait until it ends, or leave --hf-resume out: runs do not affect each other.",
            )
        return EarlierRun()
    try:
        lines = read_journal(journal)
    except ConfigError:
        if resume:
            raise
        return EarlierRun(folder.name, ended_early=True)
    if resume and not lines.header:
        problem = lines.problems[0] if lines.problems else f"{journal} is empty"
        raise ConfigError(
            f"--hf-resume: the journal of run {folder.name} cannot be read: {problem}.",
            hint=f"Leave --hf-resume out, or delete {folder} to continue the run before it.",
        )
    return _earlier(folder.name, lines, resume=bool(resume))


def _earlier(run: str, lines: JournalContents, *, resume: bool) -> EarlierRun:
    found = EarlierRun(run, ended_early=not lines.end, problems=lines.problems if resume else [])
    last = lines.starts[-1] if lines.starts and not lines.end else None
    if last is not None:
        found.running = " and ".join([_name_of(last), *last.get("with", ())])
    if not resume:
        return found
    found.finished = {result.key: result for result in lines.cells if result.is_finished}
    if last is not None and "cell" in last and not lines.header.get("run", {}).get("workers"):
        key = (last["module"], last["cell"])
        as_kept = any(result.key == key and result.decided_by == last.get("decided_by") for result in lines.kept)
        if not as_kept and all(result.key != key for result in lines.results):
            of_cell = [start["check"] for start in lines.starts if (start.get("module"), start.get("cell")) == key]
            survived = frozenset(of_cell) - {last["check"]}
            found.finished.pop(key, None)
            found.unfinished[key] = Unfinished(last["check"], survived, _plain(last.get("decided_by")))
    return found


def _name_of(start: Mapping[str, Any]) -> str:
    return f"{start['cell']} {start['check']}" if "cell" in start else str(start["test"])


def _plain(facts: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, Mapping) else {}


def _not_run(check: str, died_of: str) -> CheckOutcome:
    text = f"not run: the cell crashed before it (see {died_of!r})"
    return CheckOutcome(check, Status.SKIPPED, Stage.RUN, text)


class ResumedOutcomes:
    """The outcomes that a resumed run takes from the run before it instead of running checks again.

    Args:
        earlier: That run; `None` where there was nothing to look for.
        retry: The statuses of cells that are to be run again (`--hf-resume-retry`).
    """

    def __init__(self, earlier: EarlierRun | None, retry: Collection[str] = ()) -> None:
        self._earlier = earlier
        self._cells = earlier.finished if earlier else {}
        self._unfinished = earlier.unfinished if earlier else {}
        self._retry = frozenset(retry)

    def _reason_to_run(self, cell: CellResult, decided_by: Mapping[str, str]) -> str:
        if cell.status in self._retry:
            return f"--hf-resume-retry {cell.status}"
        return ", ".join(what_changed(cell.decided_by, decided_by))

    def outcome(
        self, key: CellKey, check: str, decided_by: Mapping[str, str], point: str | None = None
    ) -> CheckOutcome | None:
        """Return how a check ended; `None` if it has to be run.

        Args:
            key: Module and cell.
            check: The check.
            decided_by: What decides its outcome now.
            point: The point at which it measures, for a check that runs at several.
        """
        cell = self._cells.get(key)
        if cell is None or self._reason_to_run(cell, decided_by):
            return None
        found = next(
            (one for one in cell.checks if one.name == check and one.measures.get(POINT_MEASURED) == point), None
        )
        if found is None and cell.status == Status.CRASHED:
            died_of = next(outcome.name for outcome in cell.checks if outcome.status == Status.CRASHED)
            return _not_run(check, died_of)
        return found

    def facts(self, key: CellKey) -> dict[str, Any]:
        """Return what the record of a cell says beyond its outcomes."""
        cell, run = self._cells[key], self._earlier.id if self._earlier else ""
        known = {name: value for name, value in cell.to_json().items() if name not in _OUTCOMES}
        return {**known, "from_run": cell.from_run or run}

    def crash(self, key: CellKey, check: str, decided_by: Mapping[str, str]) -> CheckOutcome | None:
        """Return the outcome of a check that ended the run before this one, or comes after that; `None` for others."""
        unfinished = self._unfinished.get(key)
        if unfinished is None or Status.CRASHED in self._retry or what_changed(unfinished.decided_by, decided_by):
            return None
        if check == unfinished.check:
            assert self._earlier is not None  # noqa: S101
            text = (
                f"the run {self._earlier.id} ended early while this check was running: it crashed, or was killed from "
                "outside. It is not run again; `--hf-resume --hf-resume-retry crashed` runs it."
            )
            return CheckOutcome(check, Status.CRASHED, Stage.RUN, text)
        if check in unfinished.survived:
            return None
        return _not_run(check, unfinished.check)

    def header_lines(self, cells: Sequence[tuple[CellKey, Mapping[str, str]]], *, resume: bool) -> Iterator[str]:
        """Say how the run before this one ended, and what a run that resumes it reuses and runs again.

        Args:
            cells: The selected cells, each with what decides its outcomes now.
            resume: Whether this run resumes that one.
        """
        earlier = self._earlier
        if earlier is None:
            return
        for problem in earlier.problems:
            yield f"hfaccel: --hf-resume: {problem}"
        if earlier.ended_early:
            what = f" while running {earlier.running}" if earlier.running else ""
            yield f"hfaccel: the last run ({earlier.id}) ended early{what}"
        if not (resume and earlier.id):
            return
        again: dict[str, list[str]] = defaultdict(list)
        kept = 0
        for key, decided_by in cells:
            cell = self._cells.get(key)
            if cell is not None:
                reason = self._reason_to_run(cell, decided_by)
                kept += not reason
                if reason:
                    again[reason].append(cell.cell)
        new = len(cells) - kept - sum(map(len, again.values()))
        yield f"hfaccel: continues run {earlier.id}: of {len(cells)} cells {kept} are kept, {new} had not finished"
        for reason, names in again.items():
            yield f"hfaccel: {len(names)} run again ({reason}): {format_names(names, 4)}"
