"""Whether a model runs on a kind of device: declared by family, overridden by the results of earlier runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import BROWSER_KINDS, HARDWARE_KINDS, TORCH_KINDS
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.core.results import Cause, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Measurement


RUNNING = ("real", "untested", "emulated")
"""The words for what runs, the best one first."""

KINDS = HARDWARE_KINDS
"""The kinds of device the matrix has, in the order in which they are preferred where no speed is known."""

_TESTED_KINDS = ("cpu",)
"""The kinds of torch's devices on which this package's own runs have been made (README, "What has run where")."""

FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal", "video")

_ON_OPENVINO = ("embedding", "text_generation", "vision", "audio", "video")
"""The families that the old guide declares for OpenVINO; it calls multimodal models a simulation there."""


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
    """

    support: str
    basis: str
    reason: str
    cell: str = ""
    when: str = ""
    where: str = ""

    @property
    def runs(self) -> bool:
        """Whether it runs, for real or on a software adapter, as far as is known."""
        return self.support in RUNNING

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form; what is empty is left out."""
        return {key: value for key, value in vars(self).items() if value}


def declared_support(family: str, kind: str) -> Support:
    """Return what is declared of a family on a kind of device."""
    if kind in TORCH_KINDS:
        same = "transformers runs the same torch code on every torch device"
        if kind in _TESTED_KINDS:
            return Support("real", "declared", same)
        return Support("untested", "declared", f"{same}, but no run on {kind} is known")
    if kind == "openvino" and family in _ON_OPENVINO:
        return Support("real", "declared", f"declared for the {family} family")
    if kind in BROWSER_KINDS:
        return Support("unavailable", "declared", "no built-in backend runs models in a browser")
    of_family = f"{family} models" if family else "models of an unknown family"
    return Support("unavailable", "declared", f"nothing is declared for {of_family} on {kind}")


_FAILED = frozenset({Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY, Status.XFAILED})
_BLAMES = frozenset({Status.ERROR, Status.FAILED, Status.XFAILED})
_OUR_CAUSES = frozenset({Cause.PACKAGE, Cause.TINY_CHECKPOINT})
_SAYS_NOTHING = frozenset({Stage.RESOLVE, Stage.LOAD})
"""Stages before a device has anything to do with a model: a damaged file or a missing package says nothing of it."""


@dataclass(frozen=True)
class MeasuredCell:
    """A cell that was tried, the start of its run (ISO 8601), and what the run said of its machine."""

    result: CellResult
    when: str
    machine: str

    @property
    def kind(self) -> str:
        """The kind of device."""
        return self.result.device.partition(":")[0]

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
        return Support(word, "measured", reason, result.cell, self.when, where)


def measured_cells(reports: Path) -> list[MeasuredCell]:
    """Read the cells of all runs in a directory of reports, or of the one run whose folder it is, oldest run first.

    Files that are not reports, or are damaged, are ignored: a matrix needs no complete history.
    """
    from pytest_hfaccel.reporting.runs import run_folders

    cells = [cell for folder in run_folders(reports) or [reports] for cell in _of_run(folder)]
    return sorted((cell for cell in cells if cell.result.device != "class"), key=lambda cell: cell.when)


def _of_run(folder: Path) -> Iterator[MeasuredCell]:
    """The cells of one run: the journal of one that was cut short has what there is, else the reports have all."""
    reported = [cell for file in sorted(folder.glob("by_class/*.json")) for cell in _of_report(file)]
    yield from reported or [cell for file in folder.glob("journal.jsonl") for cell in _of_journal(file)]


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


_BEST_FIRST = (*RUNNING, "failing", "unavailable")


class CompatibilityMatrix:
    """Which model runs on which kind of device, and how that is known; the last layer of a prediction.

    Args:
        cells: Measured cells, oldest first; of several of the same kind the last one stands.
    """

    name = Source.DECLARED

    def __init__(self, cells: Iterable[MeasuredCell] = ()) -> None:
        self._cells = list(cells)

    def entry(self, model: str, architecture: str | None, family: str, kind: str) -> Support:
        """Return what is known of a model on a kind of device.

        A cell of the model itself counts first, then one of its architecture class, then what is declared of its
        family. That a device was not there when it was tried says nothing about the model, so then the declaration
        stands, and the reason says so.
        """
        measured = self._last(kind, "model", model) or self._last(kind, "architecture", architecture)
        declared = declared_support(family, kind)
        if measured is None:
            return declared
        if measured.support == "unavailable" and declared.runs:
            return Support(declared.support, "declared", f"{declared.reason}; not measured: {measured.reason}")
        return measured

    def by_family(self, family_of: Callable[[str], str]) -> dict[str, dict[str, dict[str, Any]]]:
        """Return family -> kind of device -> entry, as plain JSON; measured entries count their cells."""
        found: dict[tuple[str, str], list[Support]] = {}
        for cell in self._cells:
            support = cell.support()
            if support is not None:
                found.setdefault((family_of(cell.result.architecture), cell.kind), []).append(support)
        return {
            family: {kind: _summary(found.get((family, kind), []), family, kind) for kind in KINDS}
            for family in FAMILIES
        }

    def _last(self, kind: str, field: str, value: str | None) -> Support | None:
        """The best entry of the last run that tried it: a dtype that fails does not speak for the others."""
        known = [
            support
            for cell in self._cells
            if value and cell.kind == kind and getattr(cell.result, field) == value and (support := cell.support())
        ]
        return _best([support for support in known if support.when == known[-1].when]) if known else None

    def support(self, question: Question) -> Support:
        """Return what is known of the model on this kind of device."""
        return self.entry(question.model, question.architecture or None, question.family, question.device_kind)

    def predict(self, question: Question, trace: ModelTrace | None = None) -> Prediction:  # noqa: ARG002
        """Return what is known of support as a prediction without a number."""
        support = self.support(question)
        return Prediction(question, self.name, f"{support.basis} {support.support}: {support.reason}", None, None)

    def why_not(self, question: Question) -> str:  # noqa: ARG002
        """Say why there is no latency."""
        return "a declaration has no number"


def _best(entries: list[Support]) -> Support:
    return min(entries, key=lambda entry: _BEST_FIRST.index(entry.support))


def _summary(measured: list[Support], family: str, kind: str) -> dict[str, Any]:
    if not measured:
        return declared_support(family, kind).to_json()
    ran = sum(entry.runs for entry in measured)
    return {**_best(measured).to_json(), "cells_that_ran": ran, "cells_measured": len(measured)}
