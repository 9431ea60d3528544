"""Records of measured cells, found in the reports and journals of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.results import CellResult, Status

_RAN = {Status.PASSED: "", Status.XFAILED: "failing", Status.XPASSED: ""}
_FAILED = frozenset({Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY})


@dataclass(frozen=True)
class MeasuredCell:
    """A cell that was tried, and the run it belongs to.

    Attributes:
        result: The record.
        when: Start of the run, ISO 8601.
        machine: What the run said of its machine.
    """

    result: CellResult
    when: str
    machine: str

    @property
    def kind(self) -> str:
        """The kind of device."""
        return self.result.device.partition(":")[0]

    @property
    def median_ms(self) -> float | None:
        """Measured time of a forward pass, of weights with the model's real dimensions; `None` when not measured."""
        if self.result.weights == "tiny":
            return None
        found = (check.measures.get("median_ms") for check in self.result.checks if check.name == "performance")
        return next((float(value) for value in found if value is not None), None)

    def support(self) -> Support | None:
        """What this says of the model; `None` where it says nothing (the hub did not answer, the run was cut short)."""
        status = self.result.status
        if status in _RAN:
            word = _RAN[status] or self.result.implementation
        elif status in _FAILED:
            word = "failing"
        elif status == Status.UNAVAILABLE:
            word = "unavailable"
        else:
            return None
        reason = f"{status} with {self.result.weights} weights" + (
            f": {self.result.reason}" if self.result.reason else ""
        )
        where = f"{self.result.device} of {self.machine}" if self.machine else self.result.device
        return Support(word, "measured", reason, self.result.cell, self.when, where)


def measured_cells(reports: Path) -> list[MeasuredCell]:
    """Read the cells of all runs that left reports or journals in a directory, oldest run first.

    Files that are not ours or are damaged are passed over: a matrix needs no complete history.
    """
    cells = [cell for file in sorted(reports.glob("journal*.jsonl")) for cell in _of_journal(file)]
    cells += [cell for file in sorted(reports.glob("by_class/*.json")) for cell in _of_report(file)]
    # The last run is in both, and its report is complete.
    once = {(cell.when, cell.result.cell): cell for cell in cells if cell.result.device != "class"}
    return sorted(once.values(), key=lambda cell: cell.when)


def _of_report(file: Path) -> Iterator[MeasuredCell]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        results = [CellResult.from_json(cell) for cell in data["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    yield from (_measured(result, data) for result in results)


def _of_journal(file: Path) -> Iterator[MeasuredCell]:
    from pytest_hfaccel.reports import read_journal

    contents = read_journal(file)
    yield from (_measured(result, contents.header) for result in contents.results)


def _measured(result: CellResult, header: dict[str, Any]) -> MeasuredCell:
    run, machine = header.get("run") or {}, header.get("machine") or {}
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    name = cpu.get("name") if isinstance(cpu, dict) else cpu
    return MeasuredCell(result, str(run.get("started", "")), str(name or ""))
