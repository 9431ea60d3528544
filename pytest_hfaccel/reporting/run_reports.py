"""The reporter that writes the folder of a run: the journal during the run, the reports at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.events import CellFinished, CheckExplained, CheckStarted, Event, RunFinished, RunStarted
from pytest_hfaccel.reporting.runs import RunFolder, journal_lines, keys_in_journal


@dataclass
class Written:
    """What became of a run's results.

    Attributes:
        summary: `summary.json` in the run's folder; `None` when the reports could not be written.
        problems: What could not be written, and where the results are then.
        lost: The results that are in no file, as lines of a journal.
        is_complete: Whether everything that was to be written was.
    """

    summary: Path | None = None
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    is_complete: bool = True


class RunReports:
    """Writes the journal, and the reports at the end. A full disk does not end the run before its summary.

    Args:
        make_folder: Makes the run's folder, from the header of `RunStarted`.
        keep_runs: How many runs keep their folder.
        root: A directory: paths below it are written relative to it.
        compare: Returns what changed since a baseline, from the end of the run and its id.
    """

    def __init__(
        self,
        make_folder: Callable[[Mapping[str, Any]], RunFolder],
        *,
        keep_runs: int,
        root: str | None = None,
        compare: Callable[[RunFinished, str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._make_folder = make_folder
        self._compare = compare
        self._keep_runs = keep_runs
        self._root = root
        self._header: Mapping[str, Any] = {}
        self._folder: RunFolder | None = None
        self._unwritten: list[CellFinished] = []
        self._problem = ""
        self.written: Written | None = None
        """`None` until the end of the run, and for a run that has neither a folder nor results."""

    def __call__(self, event: Event) -> None:
        """Write what an event says.

        Raises:
            ConfigError: The run's folder cannot be made. Later problems are in `written`.
        """
        match event:
            case RunStarted(header):
                self._header = header
                self._begin()
            case CheckStarted():
                self._start(event)
            case CellFinished():
                self._unwritten.append(event)
                self._write_cells()
            case CheckExplained():
                self._explain(event)
            case RunFinished():
                self._finish(event)

    def _begin(self) -> RunFolder:
        if self._folder is None:
            self._folder = self._make_folder(self._header)
        return self._folder

    def _start(self, event: CheckStarted) -> None:
        if self._folder is None:
            return
        facts = {name: event.facts.get(name) for name in ("module", "cell", "decided_by")}
        facts |= {"check": event.check, "with": list(event.running)}
        try:
            self._folder.journal.start(event.test, **{name: value for name, value in facts.items() if value})
        except HfAccelError as error:
            self._problem = str(error)

    def _explain(self, event: CheckExplained) -> None:
        if self._folder is None:
            return
        try:
            self._folder.journal.explain(event.result, event.check, event.explanation)
        except HfAccelError as error:
            self._problem = str(error)

    @property
    def directory(self) -> Path | None:
        """The run's folder; `None` before there is one."""
        return self._folder.directory if self._folder is not None else None

    def _write_cells(self) -> None:
        """Write what is not in the journal; what could not be written before may be now."""
        try:
            folder = self._begin()
            while self._unwritten:
                cell = self._unwritten[0]
                # Outcomes that were taken over from an earlier run took this one no time.
                folder.journal.append(cell.result, {} if cell.result.from_run else cell.durations)
                del self._unwritten[0]
            self._problem = ""
        except HfAccelError as error:
            self._problem = str(error)

    def _finish(self, event: RunFinished) -> None:
        self.written = written = Written()
        if self._unwritten:
            self._write_cells()
        try:
            folder, comparison = self._begin(), None
            try:
                comparison = self._compare(event, folder.id) if self._compare else None
            except HfAccelError as error:
                written.is_complete = False
                written.problems.append(str(error))
            written.summary = folder.finish(event.results, event.header, event.ended, self._keep_runs, comparison)[-1]
            if self._unwritten:
                written.problems.append(self._problem)
        except HfAccelError as error:
            written.is_complete = False
            written.problems.append(str(error))
            journal = self._folder.journal.path if self._folder else None
            in_journal = keys_in_journal(journal) if journal else set()
            in_no_file = [result for result in event.results if result.key not in in_journal]
            if in_journal:
                told = f"the results of {len(in_journal)} of {len(event.results)} cells are in {journal}"
                written.problems.append(told)
            if in_no_file:
                written.lost = list(journal_lines(in_no_file, event.header, event.ended, root=self._root))
