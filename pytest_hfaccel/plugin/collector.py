"""Reports of single tests -> records of cells. Lives in the one process that writes.

A worker attaches what it knows to each test's report, as JSON text under the user property `hfaccel`; that survives
pytest-xdist and also lands in `--junitxml`. The collector puts the pieces of a cell together, writes the cell to the
journal as soon as its last selected test has reported, and the reports at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.errors import HfAccelError
from pytest_hfaccel.results import CellKey, CellResult, CheckOutcome, Stage, Status

if TYPE_CHECKING:
    import pytest

    from pytest_hfaccel.reports import Journal

PROPERTY = "hfaccel"


class ResultCollector:
    """Collects outcomes by model class module and cell: two modules that test one model have a record each.

    Args:
        journal: Opens the journal; called when the first outcome arrives, so that a run without cells leaves no file.
        finished: Called with each finished record.
    """

    def __init__(self, journal: Callable[[], Journal], finished: Callable[[CellResult], Any]) -> None:
        self._open_journal = journal
        self._journal: Journal | None = None
        self._finished = finished
        self._results: dict[CellKey, CellResult] = {}
        self._missing: dict[CellKey, int] = {}
        self._seen: set[str] = set()
        self.problems: dict[str, None] = {}
        """What could not be written, each text once."""

    @property
    def results(self) -> list[CellResult]:
        """The records so far, finished or not, in the order of their first outcome."""
        return list(self._results.values())

    def add(self, report: pytest.TestReport) -> None:
        """Take in one report; those of other tests and of phases without a verdict are left alone."""
        if report.when == "teardown" and not report.failed:
            return
        known = dict(report.user_properties).get(PROPERTY)
        if known is not None:
            data = json.loads(str(known))
            self._add_outcome(report.nodeid, data["facts"], CheckOutcome.from_json(data["outcome"]), data["selected"])

    def add_crash(self, cell: dict[str, Any], nodeid: str, check: str, reason: str) -> None:
        """Book the death of the process that ran a test. The cell ends with it: its other checks are not run."""
        outcome = CheckOutcome(check, Status.CRASHED, Stage.RUN, reason)
        self._add_outcome(nodeid, cell, outcome, selected=None)
        key = (cell["module"], cell["cell"])
        if self._missing.get(key) != 0 and self._results[key].checks[-1] is outcome:
            self._missing[key] = 0
            self._write(self._results[key])

    def _add_outcome(self, nodeid: str, facts: dict[str, Any], outcome: CheckOutcome, selected: int | None) -> None:
        if nodeid in self._seen:
            return
        self._seen.add(nodeid)
        result = self._results.setdefault((facts["module"], facts["cell"]), CellResult(**facts))
        for key, value in facts.items():
            if value:
                setattr(result, key, value)
        result.checks.append(outcome)
        if selected is not None:
            self._missing.setdefault(result.key, selected - (len(result.checks) - 1))
        if result.key in self._missing:
            self._missing[result.key] -= 1
            if self._missing[result.key] == 0:
                self._write(result)

    def _write(self, result: CellResult) -> None:
        """Write a finished cell to the journal; a full disk must not end the run before its summary."""
        try:
            if self._journal is None:
                self._journal = self._open_journal()
            self._journal.append(result)
        except HfAccelError as error:
            self.problems.setdefault(str(error))
        self._finished(result)

    def close(self) -> list[CellResult]:
        """End the run: mark and write the cells that did not finish, and return all records."""
        for key, result in self._results.items():
            if self._missing.get(key) != 0:
                result.incomplete = True
                self._write(result)
                self._missing[key] = 0
        try:
            if self._journal is not None:
                self._journal.close()
        except HfAccelError as error:
            self.problems.setdefault(str(error))
        return self.results
