"""Tests whose outcome an earlier run has recorded (`--hf-resume`): they end as they did, without being run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_hfaccel.results import CellKey, CellResult, CheckOutcome, Stage, Status

_OUTCOMES = frozenset({"checks", "incomplete", "status", "stage", "reason"})
_EXPECTED = frozenset({Status.XFAILED, Status.XPASSED})


class Recorded:
    """The outcomes that an earlier run has recorded.

    Args:
        kept: What `pytest_hfaccel.reports.resuming.keep_finished` returned; `None` for a run that resumes none.
        without_expected: Whether this run expects no failures (`--runxfail`): what was held against an expectation then
            has to be run.
    """

    def __init__(self, kept: Path | None, *, without_expected: bool = False) -> None:
        from pytest_hfaccel.reports.resuming import read_finished

        self._cells: dict[CellKey, CellResult] = read_finished(kept) if kept else {}
        self._left_out = _EXPECTED if without_expected else frozenset()

    def outcome(self, key: CellKey, check: str) -> CheckOutcome | None:
        """Return how a check ended; `None` if it has to be run."""
        cell = self._cells.get(key)
        if cell is None:
            return None
        found = next((outcome for outcome in cell.checks if outcome.name == check), None)
        if found is None and cell.status == Status.CRASHED:
            died_of = next(outcome.name for outcome in cell.checks if outcome.status == Status.CRASHED)
            text = f"not run: the cell crashed before it (see {died_of!r})"
            return CheckOutcome(check, Status.SKIPPED, Stage.RUN, text)
        return None if found is not None and found.status in self._left_out else found

    def facts(self, key: CellKey) -> dict[str, Any]:
        """Return what the record of a cell says beyond its outcomes."""
        return {key: value for key, value in self._cells[key].to_json().items() if key not in _OUTCOMES}
