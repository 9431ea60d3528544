"""A whole run into the database, inside one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from pytest_hfaccel.benchmark.store.calibrations import calibration_row
from pytest_hfaccel.benchmark.store.cells import assertion_rows, check_rows, compatibility_row
from pytest_hfaccel.benchmark.store.performance import batch_row, result_row
from pytest_hfaccel.benchmark.store.records import RunRecord, utc
from pytest_hfaccel.benchmark.store.rows import as_json, insert
from pytest_hfaccel.benchmark.store.subjects import Subjects
from pytest_hfaccel.reports.redact import redact
from pytest_hfaccel.results import CellResult


def write(connection: Any, record: RunRecord, *, run_key: str = "") -> int:
    """Write a run and all it found.

    Args:
        connection: An open DuckDB connection, in a transaction.
        record: The run.
        run_key: What the run is called in every database; made up for a new run.

    Returns:
        Its `run_id`.
    """
    [run_id] = insert(connection, "test_runs", [_run_row(record, run_key or str(uuid.uuid4()))])
    subjects = Subjects(connection, record)
    _write_measurements(connection, run_id, record, subjects)
    _write_cells(connection, run_id, record, subjects)
    insert(
        connection, "device_calibrations", [{"run_id": run_id, **calibration_row(each)} for each in record.calibrations]
    )
    return run_id


def _run_row(record: RunRecord, run_key: str) -> dict[str, Any]:
    started, completed = utc(record.started_at), utc(record.completed_at)
    return {
        "test_name": record.test_name,
        "test_type": record.test_type,
        "started_at": started,
        "completed_at": completed,
        "execution_time_seconds": (completed - started).total_seconds(),
        "success": record.success,
        "git_commit": record.git_commit,
        "git_branch": record.git_branch,
        "command_line": redact(record.command_line),
        "run_key": run_key,
        "torch_version": record.versions.get("torch"),
        "transformers_version": record.versions.get("transformers"),
        "openvino_version": record.versions.get("openvino"),
        "plugin_version": record.versions.get("pytest-hfaccel"),
        "versions": as_json(record.versions),
        "machine": as_json(record.machine),
    }


def _write_measurements(connection: Any, run_id: int, record: RunRecord, subjects: Subjects) -> None:
    results = [
        {
            "run_id": run_id,
            "model_id": subjects.model(one.model, one.architecture),
            "hardware_id": subjects.device(one.device, one.device_name),
            **result_row(one),
        }
        for one in record.measurements
    ]
    numbers = insert(connection, "performance_results", results)
    batches = [
        {"result_id": number, **batch_row(one)} for number, one in zip(numbers, record.measurements, strict=True)
    ]
    insert(connection, "performance_batch_results", batches)


def _write_cells(connection: Any, run_id: int, record: RunRecord, subjects: Subjects) -> None:
    compatibility, tests = [], []
    for cell in record.cells:
        hardware = subjects.device_of_cell(cell.device)
        keys = {"run_id": run_id, "model_id": subjects.model(cell.model, cell.architecture), "hardware_id": hardware}
        if hardware is not None:
            compatibility.append({**keys, **compatibility_row(cell)})
        tests += [{**keys, **row} for row in check_rows(cell)]
    insert(connection, "hardware_compatibility", compatibility)
    _write_assertions(connection, insert(connection, "integration_test_results", tests), record.cells)


def _write_assertions(connection: Any, tests: Sequence[int], cells: Sequence[CellResult]) -> None:
    checks = [check for cell in cells for check in cell.checks]
    rows = [
        {"test_result_id": number, **row}
        for number, check in zip(tests, checks, strict=True)
        for row in assertion_rows(check)
    ]
    insert(connection, "integration_test_assertions", rows)
