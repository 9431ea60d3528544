"""Reports of single tests -> records of cells. Lives in the one process that writes.

A worker attaches what it knows to each test's report, as JSON text under the user property `hfaccel`; that survives
pytest-xdist and also lands in `--junitxml`. The collector puts the pieces of a cell together, writes the cell to the
journal as soon as its last selected test has reported, and the reports at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Status

if TYPE_CHECKING:
    import pytest

    from pytest_hfaccel.reporting.runs import RunFolder

PROPERTY = "hfaccel"


class ResultCollector:
    """Collects outcomes by model class module and cell: two modules that test one model have a record each.

    Args:
        begin: Begins the run's folder; a run without cells has none.
        finished: Called with each finished record.
    """

    def __init__(self, begin: Callable[[], RunFolder], finished: Callable[[CellResult], Any]) -> None:
        self._begin = begin
        self._finished = finished
        self.folder: RunFolder | None = None
        """Where the run writes; `None` while it has no cells, or cannot write."""
        self.unwritten: list[CellResult] = []
        """The finished records that are not in the journal."""
        self.problem = ""
        """Why the last of them is not."""
        self._results: dict[CellKey, CellResult] = {}
        self._missing: dict[CellKey, int] = {}
        self._outcomes: dict[str, CheckOutcome] = {}
        self._ended: set[str] = set()
        self._running: list[str] = []

    @property
    def results(self) -> list[CellResult]:
        """The records so far, finished or not, in the order of their first outcome."""
        return list(self._results.values())

    def begin(self) -> RunFolder:
        """Begin the run's folder, unless that has been done.

        Raises:
            ConfigError: It cannot be written.
        """
        if self.folder is None:
            self.folder = self._begin()
        return self.folder

    def start(self, nodeid: str, facts: Mapping[str, Any]) -> None:
        """Write that a test is about to start; see `Journal.start`."""
        if self.folder is not None:
            others = {"with": list(self._running)} if self._running else {}
            try:
                self.folder.journal.start(nodeid, **facts, **others)
            except HfAccelError as error:
                self.problem = str(error)
        self._running.append(nodeid)

    def stop(self, nodeid: str) -> None:
        """Note that a test is over."""
        if nodeid in self._running:
            self._running.remove(nodeid)

    def add(self, report: pytest.TestReport) -> None:
        """Take in one report; those of other tests and of phases without a verdict are left alone.

        A test has ended with its teardown, or with the report of the process that died of it (which is of no phase):
        freeing a model can fail, too.
        """
        known = dict(report.user_properties).get(PROPERTY)
        if known is None:
            return
        data = json.loads(str(known))
        result = self._book(report.nodeid, data["facts"], CheckOutcome.from_json(data["outcome"]))
        if report.when in ("setup", "call") or report.nodeid in self._ended:
            return
        self._ended.add(report.nodeid)
        self._missing[result.key] = self._missing.get(result.key, data["selected"]) - 1
        if self._missing[result.key] == 0:
            self._write(result)

    def _book(self, nodeid: str, facts: dict[str, Any], outcome: CheckOutcome) -> CellResult:
        """Add a test's outcome to its cell's record; what went wrong after a good outcome takes that one's place."""
        result = self._results.setdefault((facts["module"], facts["cell"]), CellResult(**facts))
        for key, value in facts.items():
            if value:
                setattr(result, key, value)
        earlier = self._outcomes.get(nodeid)
        if earlier is None:
            self._outcomes[nodeid] = outcome
            result.checks.append(outcome)
        elif outcome.status.is_bad and not earlier.status.is_bad:
            earlier.status, earlier.stage, earlier.reason = outcome.status, outcome.stage, outcome.reason
        result.incomplete = result.incomplete or outcome.status == Status.INCOMPLETE
        return result

    def _write(self, result: CellResult) -> None:
        """Write a finished cell to the journal; a full disk must not end the run before its summary."""
        self.unwritten.append(result)
        self._write_unwritten()
        self._finished(result)

    def _write_unwritten(self) -> None:
        """Write what is not in the journal; what could not be written before may be now."""
        try:
            folder = self.begin()
            while self.unwritten:
                folder.journal.append(self.unwritten[0])
                del self.unwritten[0]
            self.problem = ""
        except HfAccelError as error:
            self.problem = str(error)

    def close(self) -> list[CellResult]:
        """End the run: mark and write the cells that did not finish, and return all records."""
        for key, result in self._results.items():
            if self._missing.get(key) != 0:
                result.incomplete = True
                self._write(result)
                self._missing[key] = 0
        if self.unwritten:
            self._write_unwritten()
        return self.results
