"""The cells of earlier runs, from reports, journals, support matrices and the database; what each says of a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import Cause, CellResult, CheckOutcome, Stage, Status

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.history import BenchmarkDatabase


@dataclass(frozen=True)
class Support:
    """Whether a model or a family runs on a kind of device, and how that is known.

    Attributes:
        support: `real` (that hardware runs it), `untested` (nothing speaks against it, but no run is known), `emulated`
            (the real runtime on a software adapter), `failing` (it was tried there and failed) or `unavailable`.
        basis: `declared`, `measured`, `detected` (of the device's instruction sets or the installed packages), or
            `override` when the caller said so.
        reason: A short phrase.
        cell: Id of the measured cell, empty when declared.
        when: Start of the run that measured it, ISO 8601, empty when declared.
        where: The device and machine that measured it, empty when declared.
        run: The run that measured it, empty when declared.
    """

    support: str
    basis: str
    reason: str
    cell: str = ""
    when: str = ""
    where: str = ""
    run: str = ""

    @property
    def runs(self) -> bool:
        """Whether it runs, for real or on a software adapter, as far as is known."""
        return self.support in RUNNING

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form; what is empty is left out."""
        return {key: value for key, value in vars(self).items() if value}


RUNNING = ("real", "untested", "emulated")
"""The words for what runs, the best one first."""

_FAILED = frozenset({Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.XFAILED})
_BLAMES = frozenset({Status.ERROR, Status.FAILED, Status.XFAILED})
_OUR_CAUSES = frozenset({Cause.PACKAGE, Cause.TINY_CHECKPOINT, Cause.OURS})
_SAYS_NOTHING = frozenset({Stage.RESOLVE, Stage.LOAD})
"""Stages before a device has anything to do with a model: a damaged file or a missing package says nothing of it."""
_DID_NOT_RUN = frozenset({Status.SKIPPED, Status.UNAVAILABLE, Status.INCOMPLETE, Status.INFRA_ERROR})


@dataclass(frozen=True)
class MeasuredCell:
    """A cell that was tried, the start of its run (ISO 8601), what the run said of its machine, and the run's id."""

    result: CellResult
    when: str
    machine: str
    run: str = ""

    @property
    def kind(self) -> str:
        """The kind of device."""
        return kind_of(self.result.device)

    @property
    def key(self) -> tuple[str, str, str]:
        """Model, device and dtype: a later cell of the same key replaces an earlier one."""
        return (self.result.model, self.result.device, self.result.dtype)

    @property
    def checks(self) -> tuple[int, int]:
        """How many checks passed, and how many ran."""
        ran = [check.status for check in self.result.checks if check.status not in _DID_NOT_RUN]
        return ran.count(Status.PASSED), len(ran)

    def support(self) -> Support | None:
        """What this says of the model on the hardware; `None` where it says nothing.

        That is so where the hub did not answer, the run was cut short, or the model was never brought to the device.
        """
        result, status = self.result, self.result.status
        cause = next((check.cause for check in result.checks if check.status == status), None)
        if status in _BLAMES and (result.stage in _SAYS_NOTHING or cause in _OUR_CAUSES):
            return None
        if status in (Status.PASSED, Status.XPASSED):
            word = result.implementation
        elif status in _FAILED:
            word = "failing"
        elif status == Status.UNAVAILABLE:
            word = "unavailable"
        else:
            return None
        reason = f"{status} with {result.weights} weights" + (f": {result.reason}" if result.reason else "")
        where = f"{result.device} of {self.machine}" if self.machine else result.device
        return Support(word, "measured", reason, result.cell, self.when, where, self.run)


def measured_cells(reports: Path) -> list[MeasuredCell]:
    """Read the cells of all runs in a directory of reports, or of the one run whose folder it is, oldest run first.

    Lines that are damaged are ignored: a matrix needs no complete history.
    """
    from pytest_hfaccel.reporting.journal import JOURNAL
    from pytest_hfaccel.reporting.runs import run_folders

    journals = [folder / JOURNAL for folder in run_folders(reports) or [reports]]
    return _in_order(cell for journal in journals if journal.is_file() for cell in _of_journal(journal))


def cells_in(places: Iterable[Path]) -> list[MeasuredCell]:
    """Read the cells of directories of reports, journals (`*.jsonl`), support matrices and databases, oldest run first.

    Raises:
        ConfigError: One of them is not there, or is none of these.
    """
    found: list[MeasuredCell] = []
    for place in places:
        if place.is_dir():
            found += measured_cells(place)
        elif place.suffix in (".duckdb", ".db"):
            from pytest_hfaccel.history import BenchmarkDatabase

            found += cells_of_database(BenchmarkDatabase(place, create=False))
        elif ".json" in place.suffixes:
            found += _of_support_matrix(place)
        else:
            found += _of_journal(place)
    return _in_order(found)


def _in_order(cells: Iterable[MeasuredCell]) -> list[MeasuredCell]:
    return sorted((cell for cell in cells if cell.result.device != "class"), key=lambda cell: cell.when)


def _of_journal(file: Path) -> Iterator[MeasuredCell]:
    from pytest_hfaccel.reporting import read_journal

    contents = read_journal(file)
    yield from (_measured(result, contents.header) for result in contents.cells)


def _of_support_matrix(file: Path) -> Iterator[MeasuredCell]:
    from pytest_hfaccel.reporting.evidence import read_evidence

    coverage = read_evidence([file]).newest()
    when = max((str((header.get("run") or {}).get("started") or "") for header in coverage.runs), default="")
    yield from (MeasuredCell(result, when, "", file.name) for result in coverage.cells)


def _measured(result: CellResult, header: Mapping[str, Any]) -> MeasuredCell:
    run, machine = header.get("run") or {}, header.get("machine") or {}
    cpu = machine.get("cpu") if isinstance(machine, dict) else None
    name = cpu.get("name") if isinstance(cpu, dict) else cpu
    return MeasuredCell(result, str(run.get("started", "")), str(name or ""), str(run.get("id", "")))


def cells_of_database(database: BenchmarkDatabase) -> list[MeasuredCell]:
    """Return the newest cell of each model, device, dtype and weights in a benchmark database."""
    return [
        MeasuredCell(
            CellResult(
                cell=row["cell"] or f"{row['model']}-{row['device']}-{row['dtype']}",
                model=row["model"],
                architecture=row["architecture"] or "",
                module="",
                task="",
                device=row["device"],
                dtype=row["dtype"] or "",
                weights=row["weights"] or "",
                implementation=row["implementation"] or "real",
                placement=row["placement"],
                checks=[
                    CheckOutcome(check["name"], Status(check["status"]), check["stage"] and Stage(check["stage"]), text)
                    for check in row["checks"]
                    for text in [check["message"]]
                ],
            ),
            row["started"],
            row["device_name"] or "",
            f"{database.path.name} {row['run_id']}",
        )
        for row in database.cells()
    ]


def measurements_of(cells: Iterable[MeasuredCell]) -> list[Measurement]:
    """Return the measurements that cells carry; those of tiny models say nothing of the model whose name they bear."""
    from pytest_hfaccel.history.recording import measurements_in

    found: list[Measurement] = []
    for cell in cells:
        with suppress(ConfigError):  # written by another version
            found += [row for check in cell.result.checks for row in measurements_in(check.measures)]
    return [row for row in found if row.weights != "tiny"]


def cells_of_measurements(rows: Iterable[Measurement]) -> list[MeasuredCell]:
    """Return the cells that measured rows speak of, each once: a model that was timed on a device runs there."""
    return list({(row.model, row.device, row.dtype): _timed(row) for row in rows}.values())


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
