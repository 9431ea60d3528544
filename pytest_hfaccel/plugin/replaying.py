"""Tests whose outcome an earlier run has recorded (`--hf-resume`): they end as they did, without being run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.plugin.collection import cell_of, item_check
from pytest_hfaccel.plugin.keys import OUTCOME, SESSION

if TYPE_CHECKING:
    from pytest_hfaccel.reporting.resuming import EarlierRun

_OUTCOMES = frozenset({"checks", "incomplete", "status", "stage", "reason"})
_NAMES_SHOWN = 4
POINT_MEASURED = "point"
"""The measure that says at which point a check ran, of one that runs at several."""


def refuse_crashed(item: pytest.Item) -> None:
    """End a test without running it when it, or one before it on its cell, took down the run that is resumed.

    Raises:
        pytest.fail.Exception: It did.
        pytest.skip.Exception: One before it did.
    """
    cell = cell_of(item)
    if cell is None:
        return
    session, model_class = item.config.stash[SESSION], item.cls  # type: ignore[attr-defined]
    key = session.module_of(model_class), cell.id
    outcome = session.recorded.crash(key, item_check(item), session.decided_by(cell, model_class))
    if outcome is None:
        return
    item.stash[OUTCOME] = outcome
    if outcome.status == Status.CRASHED:
        pytest.fail(f"crashed: {outcome.reason}", pytrace=False)
    pytest.skip(outcome.reason or "")


class Recorded:
    """What the run before this one has recorded.

    Args:
        earlier: That run; `None` where there was nothing to look for.
        retry: The statuses of cells that are to be run again (`--hf-retry`).
    """

    def __init__(self, earlier: EarlierRun | None, retry: Collection[str] = ()) -> None:
        self._earlier = earlier
        self._cells = earlier.finished if earlier else {}
        self._unfinished = earlier.unfinished if earlier else {}
        self._retry = frozenset(retry)

    def _found(self, key: CellKey, decided_by: Mapping[str, str]) -> CellResult | None:
        cell = self._cells.get(key)
        return cell if cell is not None and not self._why_again(cell, decided_by) else None

    def _why_again(self, cell: CellResult, decided_by: Mapping[str, str]) -> str:
        from pytest_hfaccel.engine.outcome_key import what_changed

        if cell.status in self._retry:
            return f"--hf-retry {cell.status}"
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
        cell = self._found(key, decided_by)
        if cell is None:
            return None
        found = next(
            (one for one in cell.checks if one.name == check and one.measures.get(POINT_MEASURED) == point), None
        )
        if found is None and cell.status == Status.CRASHED:
            died_of = next(outcome.name for outcome in cell.checks if outcome.status == Status.CRASHED)
            text = f"not run: the cell crashed before it (see {died_of!r})"
            return CheckOutcome(check, Status.SKIPPED, Stage.RUN, text)
        return found

    def facts(self, key: CellKey) -> dict[str, Any]:
        """Return what the record of a cell says beyond its outcomes."""
        cell, run = self._cells[key], self._earlier.id if self._earlier else ""
        known = {name: value for name, value in cell.to_json().items() if name not in _OUTCOMES}
        return {**known, "from_run": cell.from_run or run}

    def crash(self, key: CellKey, check: str, decided_by: Mapping[str, str]) -> CheckOutcome | None:
        """Return the outcome of a check that ended the run before this one, or comes after that; `None` for others."""
        from pytest_hfaccel.engine.outcome_key import what_changed

        unfinished = self._unfinished.get(key)
        if unfinished is None or Status.CRASHED in self._retry or what_changed(unfinished.decided_by, decided_by):
            return None
        if check == unfinished.check:
            assert self._earlier is not None  # noqa: S101
            text = (
                f"the run {self._earlier.id} ended early while this check was running: it crashed, or was killed from "
                "outside. It is not run again; `--hf-resume --hf-retry crashed` runs it."
            )
            return CheckOutcome(check, Status.CRASHED, Stage.RUN, text)
        if check in unfinished.survived:
            return None
        text = f"not run: the cell crashed before it (see {unfinished.check!r})"
        return CheckOutcome(check, Status.SKIPPED, Stage.RUN, text)

    def header_lines(self, cells: Sequence[tuple[CellKey, Mapping[str, str]]], *, resume: bool) -> Iterator[str]:
        """Say how the run before this one ended, and what a run that goes on with it keeps and runs again.

        Args:
            cells: The selected cells, each with what decides its outcomes now.
            resume: Whether this run goes on with that one.
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
                reason = self._why_again(cell, decided_by)
                kept += not reason
                if reason:
                    again[reason].append(cell.cell)
        new = len(cells) - kept - sum(map(len, again.values()))
        yield f"hfaccel: goes on with run {earlier.id}: of {len(cells)} cells {kept} are kept, {new} had not finished"
        for reason, names in again.items():
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            yield f"hfaccel: {len(names)} run again ({reason}): {', '.join(names[:_NAMES_SHOWN])}{more}"
