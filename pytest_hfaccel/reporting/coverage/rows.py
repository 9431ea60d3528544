"""Journals, and earlier coverages -> one row per class, with its cells and what did not pass in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import NOT_REACHED, SCHEMA_VERSION, CellResult, CheckOutcome, Status
from pytest_hfaccel.reporting.coverage.causes import cause_of
from pytest_hfaccel.reporting.coverage.commands import command_of, command_of_run
from pytest_hfaccel.reporting.coverage.earlier import headers_of, read_coverage_json, results_of
from pytest_hfaccel.reporting.journal import read_journal

_ENTRY = re.compile(r" \[[^\[\]]+:\d+\]$")
_REASON_LENGTH = 300


@dataclass
class Coverage:
    """The records of all runs.

    Attributes:
        runs: The headers of their journals.
        cells: The newest record of each cell, sorted by model and device.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    cells: list[CellResult] = field(default_factory=list)

    def columns(self) -> list[tuple[str, str]]:
        """The (device, dtype) that ran, the class level first."""
        found = {(cell.device, cell.dtype) for cell in self.cells}
        return sorted(found, key=lambda column: (column[0] != "class", column[0] != "cpu", *column))

    def of(self, device: str, dtype: str) -> list[CellResult]:
        """The cells of one device and dtype."""
        return [cell for cell in self.cells if (cell.device, cell.dtype) == (device, dtype)]


def read_coverage(files: Sequence[Path]) -> Coverage:
    """Read journals, and the JSON of earlier coverages (`*.json`); of a check in several of them the last one counts.

    Raises:
        ConfigError: A file cannot be read, or there is no finished cell in any of them.
    """
    runs: list[dict[str, Any]] = []
    cells: dict[tuple[str, str, str], CellResult] = {}
    for path in files:
        headers, results = _read(path)
        runs += headers
        for cell in results:
            if not cell.incomplete:
                key = (cell.model, cell.device, cell.dtype)
                cells[key] = _added_to(cells[key], cell) if key in cells else cell
    if not cells:
        raise ConfigError(
            f"{', '.join(map(str, files))}: no finished cell.",
            hint="A run writes the journal to its reports' directory, by default reports/journal.jsonl.",
        )
    ordered = sorted(cells.values(), key=lambda cell: (cell.model.lower(), cell.device, cell.dtype))
    return Coverage(runs, ordered)


def _added_to(earlier: CellResult, later: CellResult) -> CellResult:
    """The later record with the checks that only the earlier one has: a run may have asked for some checks only."""
    again = {check.name for check in later.checks}
    return replace(later, checks=[*(check for check in earlier.checks if check.name not in again), *later.checks])


def _read(path: Path) -> tuple[list[dict[str, Any]], list[CellResult]]:
    if path.suffix == ".json":
        data = read_coverage_json(path)
        return headers_of(data), list(results_of(data))
    contents = read_journal(path)
    return [contents.header], contents.results


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """Return all that is known, as plain JSON: per class its cells, per cell the checks by how they ended."""
    models: dict[str, dict[str, Any]] = {}
    for cell in coverage.cells:
        about = {"class": cell.architecture, "task": cell.task, "weights": cell.weights, "cells": {}}
        models.setdefault(cell.model, about)["cells"][f"{cell.device} {cell.dtype}"] = _cell(cell)
    return {
        "schema": "pytest-hfaccel/coverage",
        "schema_version": SCHEMA_VERSION,
        "runs": [_run(header) for header in coverage.runs],
        "models": models,
    }


def told(cell: CellResult) -> list[CheckOutcome]:
    """Return the outcomes of a cell that are no pass, each failure once."""
    bad = [check for check in cell.checks if check.status not in (Status.PASSED, Status.SKIPPED)]
    first = [check for check in bad if NOT_REACHED not in (check.reason or "")]
    return _distinct(first or bad)


def reason_of(outcome: CheckOutcome) -> str:
    """Return why a check did not pass, on one line; of an expected failure what its entry says, not where it is."""
    lines = (outcome.reason or str(outcome.status)).splitlines()
    expected = outcome.status == Status.XFAILED
    text = _ENTRY.sub("", lines[0]) if expected else " ".join(line.strip() for line in lines)
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


def _distinct(outcomes: Iterable[CheckOutcome]) -> list[CheckOutcome]:
    by_reason: dict[str, CheckOutcome] = {}
    for outcome in outcomes:
        by_reason.setdefault(f"{outcome.stage} {reason_of(outcome)}", outcome)
    return list(by_reason.values())


def _cell(cell: CellResult) -> dict[str, Any]:
    checks: dict[str, list[str]] = {}
    for check in cell.checks:
        checks.setdefault(str(check.status), []).append(check.name)
    found: dict[str, Any] = {"status": str(cell.status), "checks": checks}
    if (distance := rel_l2(cell)) is not None:
        found["rel_l2"] = float(f"{distance:.3g}")
    if problems := list(_problems(cell)):
        found |= {"problems": problems, "command": command_of(cell)}
    return found


def _problems(cell: CellResult) -> Iterator[dict[str, str]]:
    for check in told(cell):
        yield {
            "check": check.name,
            "status": str(check.status),
            "stage": str(check.stage),
            "cause": cause_of(check, cell.device),
            "reason": reason_of(check),
        }


def rel_l2(cell: CellResult) -> float | None:
    """Return the distance from the reference that a cell's parity check measured; `None` if it did not."""
    found = next((check.measures.get("rel_l2") for check in cell.checks if check.name == "parity"), None)
    return found if isinstance(found, float) else None


def _run(header: dict[str, Any]) -> dict[str, Any]:
    run = header.get("run", {})
    versions = {name: version for name, version in header.get("versions", {}).items() if version}
    return {"command": command_of_run(header), "started": run.get("started"), "versions": versions}
