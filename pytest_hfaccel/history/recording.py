"""The record of a run, as the database keeps it, and the measurements in results and reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult

_MARKS = {"model", "architecture", "device_name", "latency", "noise"}
"""What a JSON object has when it is a measurement."""


@dataclass(frozen=True)
class RunRecord:
    """A run and its results; it is written to the database as a whole or not at all.

    Attributes:
        test_name: What ran, e.g. `hfaccel bench`.
        test_type: Which kind of run: `integration`, `performance`, ...
        started_at: When it began: a time (without a zone it is UTC) or its ISO 8601 text.
        completed_at: When it ended, likewise.
        success: Whether nothing failed.
        git_commit: Commit of the code under test; empty where there is none.
        git_branch: Its branch.
        command_line: How the run was started.
        versions: By package; `None` for one that is not installed.
        machine: Facts of the machine as `pytest_hfaccel.hardware.machine_facts` returns them.
        measurements: What was measured.
        cells: What happened to the cells.
        calibrations: The calibrations the run took, or their plain-JSON forms.
    """

    test_name: str
    test_type: str
    started_at: datetime | str
    completed_at: datetime | str
    success: bool
    git_commit: str = ""
    git_branch: str = ""
    command_line: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    cells: Sequence[CellResult] = ()
    calibrations: Sequence[Any] = ()


def make_record(
    header: Mapping[str, Any],
    *,
    test_name: str,
    cells: Sequence[CellResult] = (),
    measurements: Sequence[Measurement] = (),
    success: bool | None = None,
    directory: Path | None = None,
) -> RunRecord:
    """Describe a run as the database keeps it.

    Args:
        header: Plain JSON about the run: `started`, `finished`, `command`, `machine` and, where known, `commit`.
        test_name: What ran, e.g. `pytest` or `hfaccel bench`.
        cells: The records of its cells, with their measurements.
        measurements: Further measurements.
        success: Whether nothing failed; whether no cell failed when not given.
        directory: A directory in the repository of the code under test; by default the working directory.
    """
    from pytest_hfaccel.reporting.run_facts import git_branch, git_commit, installed_versions

    where = directory or Path.cwd()
    measured = [*measurements_of(cells), *measurements]
    return RunRecord(
        test_name=test_name,
        test_type="performance" if measured else "integration",
        started_at=header["started"],
        completed_at=header["finished"],
        success=not any(cell.status.is_bad for cell in cells) if success is None else success,
        git_commit=header.get("commit") or git_commit(where) or "",
        git_branch=git_branch(where) or "",
        command_line=header.get("command", ""),
        versions=installed_versions(),
        machine=header.get("machine", {}),
        measurements=[with_family(one) for one in measured],
        cells=cells,
    )


def measurements_of(cells: Iterable[CellResult]) -> list[Measurement]:
    """Return what the cells' checks measured."""
    plain = [one for cell in cells for check in cell.checks for one in check.measures.get("measurements", ())]
    return [Measurement.from_json(one) for one in plain]


def measurements_in(data: Any) -> Iterator[Measurement]:
    """Yield the measurements in a plain-JSON value, wherever they are.

    Raises:
        ConfigError: What looks like a measurement lacks something, or has something else in its place.
    """
    if isinstance(data, dict) and set(data) >= _MARKS:
        try:
            yield Measurement.from_json(data)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a measurement of {data['model']!r} is not complete: {type(error).__name__}: {error}",
                hint="Was it written by another version of pytest-hfaccel? Measure again, or move the file away.",
            ) from error
    elif isinstance(data, dict | list | tuple):
        for value in data.values() if isinstance(data, dict) else data:
            yield from measurements_in(value)


def with_family(measurement: Measurement) -> Measurement:
    """Fill in the model's family, as `hfaccel classify` gives it; left empty where it is not known."""
    if measurement.family:
        return measurement
    from pytest_hfaccel.classify import classify_model

    family = classify_model(measurement.model, measurement.architecture, [measurement.task])["family"]
    return replace(measurement, family=family or "")
