"""Record the results of a run in the benchmark database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.results import CellResult

if TYPE_CHECKING:
    from pytest_hfaccel.history.rows import RunRecord


def record_run(path: Path, record: RunRecord) -> int:
    """Write a run to a database, as a whole or not at all; the file is made where there is none.

    Returns:
        The run's number in it.

    Raises:
        ConfigError: duckdb is not installed, or the file is locked, damaged, full or not ours.
    """
    from pytest_hfaccel.history import BenchmarkDatabase

    path.parent.mkdir(parents=True, exist_ok=True)
    return BenchmarkDatabase(path).write_run(record)


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
    from pytest_hfaccel.history.rows import RunRecord
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


def with_family(measurement: Measurement) -> Measurement:
    """Fill in the model's family, as `hfaccel classify` gives it; left empty where it is not known."""
    if measurement.family:
        return measurement
    from pytest_hfaccel.classify import classify_model

    family = classify_model(measurement.model, measurement.architecture, [measurement.task])["family"]
    return replace(measurement, family=family or "")
