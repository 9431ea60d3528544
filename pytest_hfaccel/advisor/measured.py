"""Records of measured cells, found in the reports and journals of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import Cause, CellResult, CheckOutcome, Stage, Status

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Measurement

_RAN = {Status.PASSED: "", Status.XFAILED: "failing", Status.XPASSED: ""}
_FAILED = frozenset({Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY})
_BLAMES = frozenset({Status.ERROR, Status.FAILED, Status.XFAILED})
_OUR_CAUSES = frozenset({Cause.PACKAGE, Cause.FACTORY})
_SAYS_NOTHING = frozenset({Stage.RESOLVE, Stage.LOAD})
"""Stages before a device has anything to do with a model: a damaged file or a missing package says nothing of it."""


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
    def _cause(self) -> str | None:
        """Whose doing the failure that decided the status is, where that was told."""
        status = self.result.status
        return next((check.measures.get("cause") for check in self.result.checks if check.status == status), None)

    def support(self) -> Support | None:
        """What this says of the model on the hardware; `None` where it says nothing.

        That is so where the hub did not answer, the run was cut short, or the model was never brought to the device.
        """
        status = self.result.status
        if status in _BLAMES and (self.result.stage in _SAYS_NOTHING or self._cause in _OUR_CAUSES):
            return None
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
    """Read the cells of all runs in a directory of reports, or of the one run whose folder it is, oldest run first.

    Files that are not ours or are damaged are passed over: a matrix needs no complete history.
    """
    from pytest_hfaccel.reporting.runs import run_folders

    cells = [cell for folder in run_folders(reports) or [reports] for cell in _of_run(folder)]
    return sorted((cell for cell in cells if cell.result.device != "class"), key=lambda cell: cell.when)


def _of_run(folder: Path) -> Iterator[MeasuredCell]:
    """The cells of one run: the journal of one that was cut short has what there is, else the reports have all."""
    reported = [cell for file in sorted(folder.glob("by_class/*.json")) for cell in _of_report(file)]
    yield from reported or [cell for file in folder.glob("journal.jsonl") for cell in _of_journal(file)]


def cells_of_measurements(rows: Iterable[Measurement]) -> list[MeasuredCell]:
    """Return the cells that measured rows speak of, each once: a model that was timed on a device runs there."""
    return list({(row.model, row.device, row.dtype): _timed(row) for row in rows}.values())


def measurements_of(cells: Iterable[MeasuredCell]) -> list[Measurement]:
    """Return the measurements that cells carry; those of tiny models say nothing of the model whose name they bear."""
    from pytest_hfaccel.history.rows import measurements_in

    found: list[Measurement] = []
    for cell in cells:
        with suppress(ConfigError):  # written by another version
            found += [row for check in cell.result.checks for row in measurements_in(check.measures)]
    return [row for row in found if row.weights != "tiny"]


def _timed(row: Measurement) -> MeasuredCell:
    result = CellResult(
        cell=f"{row.model}-{row.device}-{row.dtype}",
        model=row.model,
        architecture=row.architecture,
        module="",
        task=row.task,
        device=row.device,
        dtype=row.dtype,
        weights=row.weights,
        implementation=row.implementation,
        checks=[CheckOutcome("performance", reason=f"{row.latency.median_ms:.3g} ms at batch {row.batch}")],
    )
    return MeasuredCell(result, "", row.device_name)


def _of_report(file: Path) -> Iterator[MeasuredCell]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        results = [CellResult.from_json(cell) for cell in data["cells"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    yield from (_measured(result, data) for result in results)


def _of_journal(file: Path) -> Iterator[MeasuredCell]:
    from pytest_hfaccel.reporting import read_journal

    contents = read_journal(file)
    yield from (_measured(result, contents.header) for result in contents.results)


def _measured(result: CellResult, header: dict[str, Any]) -> MeasuredCell:
    run, machine = header.get("run") or {}, header.get("machine") or {}
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    name = cpu.get("name") if isinstance(cpu, dict) else cpu
    return MeasuredCell(result, str(run.get("started", "")), str(name or ""))
