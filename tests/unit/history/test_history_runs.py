"""A run in the benchmark database: everything of it, once, and equal when it is read back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.history import BenchmarkDatabase
from tests.unit.history.store_samples import CALIBRATION, FULL, MACHINE, MEASURED, MEASUREMENTS, TINY, cell, record


@pytest.fixture
def database(tmp_path: Path) -> BenchmarkDatabase:
    return BenchmarkDatabase(tmp_path / "a.duckdb")


def one(database: BenchmarkDatabase, query: str) -> Any:
    """The only value a query returns."""
    frame = database.sql(query)
    assert frame.shape == (1, 1)
    return frame.iloc[0, 0]


def test_measurements_are_read_back_equal(database: BenchmarkDatabase) -> None:
    database.write_run(record())
    assert database.measurements() == MEASUREMENTS


def test_the_samples_differ_in_every_field_from_the_defaults() -> None:
    # Otherwise the test above could not see a field that is lost.
    same = {name for name in vars(FULL) if getattr(FULL, name) == getattr(TINY, name)}
    assert same == {"threads", "length"}


def test_an_empty_run_is_a_run(database: BenchmarkDatabase) -> None:
    run = database.write_run(record(measurements=[], cells=[], calibrations=[]))
    assert one(database, "SELECT run_id FROM test_runs") == run
    assert database.measurements() == []


def test_runs_are_numbered_and_kept_in_order(database: BenchmarkDatabase) -> None:
    first = database.write_run(record(measurements=[MEASURED]))
    second = database.write_run(record(measurements=[FULL]))
    assert second > first
    assert database.measurements() == [MEASURED, FULL]


def test_a_run_knows_its_times_versions_and_commit(database: BenchmarkDatabase) -> None:
    database.write_run(record())
    row = database.frame("test_runs").iloc[0]
    assert (row.started_at, row.completed_at) == (datetime(2026, 1, 31, 12), datetime(2026, 1, 31, 12, 0, 30))
    assert row.execution_time_seconds == 30
    assert (row.git_commit, row.git_branch, row.torch_version) == ("abc123", "main", "2.13.0")
    assert (row.transformers_version, row.plugin_version) == ("5.23.0", "0.1.0")
    assert json.loads(row.versions)["openvino"] is None
    assert json.loads(row.machine) == MACHINE


@pytest.mark.parametrize(
    "start",
    [
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00Z",
        datetime(2026, 1, 31, 12),
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        datetime(2026, 1, 31, 7, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_times_are_kept_in_utc(database: BenchmarkDatabase, start: datetime | str) -> None:
    database.write_run(record(started_at=start))
    assert one(database, "SELECT started_at FROM test_runs") == datetime(2026, 1, 31, 12)


def test_a_secret_in_the_command_line_is_not_kept(database: BenchmarkDatabase) -> None:
    token = "hf_" + "a1" * 17
    database.write_run(record(command_line=f"pytest --token {token}"))
    assert token not in one(database, "SELECT command_line FROM test_runs")


def test_models_and_devices_are_kept_once(database: BenchmarkDatabase) -> None:
    for _ in range(3):
        database.write_run(record())
    assert one(database, "SELECT count(*) FROM models") == 2
    assert list(database.frame("hardware_platforms").device) == ["cpu", "cuda:0"]


def test_a_device_is_known_by_its_machine(database: BenchmarkDatabase) -> None:
    database.write_run(record())
    cpu, gpu = database.frame("hardware_platforms").to_dict("records")
    assert (cpu["platform"], cpu["platform_version"], cpu["memory_gb"], cpu["compute_units"]) == (
        "Linux",
        "6.1.0",
        8.0,
        2,
    )
    assert (gpu["hardware_type"], gpu["driver_version"], gpu["memory_gb"]) == ("cuda", "570.1", 24.0)
    assert "available_bytes" not in json.loads(cpu["metadata"])


@pytest.mark.parametrize("change", [{"os": "Linux 6.2.0"}, {"drivers": {"cuda:0": "580.0"}}])
def test_another_system_or_driver_is_another_device(database: BenchmarkDatabase, change: dict[str, Any]) -> None:
    database.write_run(record(measurements=[FULL], cells=[]))
    database.write_run(record(measurements=[FULL], cells=[], machine={**MACHINE, **change}))
    assert one(database, "SELECT count(*) FROM hardware_platforms WHERE device = 'cuda:0'") == 2


def test_what_is_learned_later_about_a_model_is_filled_in(database: BenchmarkDatabase) -> None:
    database.write_run(record(measurements=[TINY]))
    assert database.frame("models").parameters_million.isna().all()
    database.write_run(record(measurements=[replace(MEASURED, family="embedding")]))
    database.write_run(record(measurements=[replace(MEASURED, family="vision", parameters=5)]))
    model = database.frame("models").iloc[0]
    assert (model.model_family, model.parameters_million, model.modality) == ("embedding", 110.0, "text")
    assert [each.family for each in database.measurements()] == ["", "embedding", "vision"]


def test_the_old_columns_say_what_the_measurement_says(database: BenchmarkDatabase) -> None:
    database.write_run(record(measurements=[MEASURED]))
    row = database.frame("performance_results").iloc[0]
    assert row.total_time_seconds == pytest.approx(30 * 4.1e-3)
    assert row.average_latency_ms == 4.1
    assert row.throughput_items_per_second == pytest.approx(8 / 4.0e-3)
    assert row.memory_peak_mb == pytest.approx(512, abs=1e-5)
    assert (row.iterations, row.warmup_iterations, row.precision) == (30, 5, "fp32")
    batch = database.frame("performance_batch_results").iloc[0]
    assert (batch.result_id, batch.batch_size, batch.median_ms) == (row.result_id, 8, 4.0)


def test_cells_become_compatibility_tests_and_assertions(database: BenchmarkDatabase) -> None:
    database.write_run(record())
    found = database.frame("model_hardware_compatibility").iloc[0]
    assert not found.is_compatible
    assert (found.compatibility_score, found.error_type, found.error_message) == (0.5, "failed", "two\nlines")
    assert (found.effective_dtype, found.device_name) == ("fp32", "AMD EPYC")
    tests = database.frame("integration_test_results")
    assert list(tests.test_name) == ["parity", "task_sense", "generation"]
    assert list(tests.status) == ["passed", "failed", "skipped"]
    assert list(tests.execution_time_seconds) == [0.5, 0.25, 0.0]
    said = database.frame("integration_test_assertions")
    names = dict(zip(said.assertion_name, said.passed, strict=True))
    assert names == {"parity": True, "task_sense": False, "fills the mask": False, "is deterministic": True}


def test_checks_that_need_no_device_have_none(database: BenchmarkDatabase) -> None:
    database.write_run(record(measurements=[], cells=[cell(device="class", dtype="")]))
    assert database.frame("integration_test_results").hardware_id.isna().all()
    assert database.frame("hardware_compatibility").empty
    assert database.frame("hardware_platforms").empty
    assert list(database.frame("integration_test_status").status) == ["passed", "failed", "skipped"]


@pytest.mark.parametrize(
    ("outcome", "compatible", "detected", "initialised"),
    [
        (CheckOutcome("parity"), True, True, True),
        (CheckOutcome("parity", Status.ERROR, Stage.COMPILE, "no kernel\nUse fp32."), False, True, False),
        (CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "x"), False, True, True),
        (CheckOutcome("parity", Status.XFAILED, Stage.COMPARE, "x"), False, True, True),
        (CheckOutcome("parity", Status.UNAVAILABLE, Stage.RESOLVE, "no GPU"), None, False, False),
        (CheckOutcome("parity", Status.HUB_ERROR, Stage.LOAD, "no hub"), None, True, False),
        (CheckOutcome("parity", Status.SKIPPED, reason="x"), None, True, None),
    ],
)
def test_what_a_cell_says_about_compatibility(
    database: BenchmarkDatabase,
    outcome: CheckOutcome,
    compatible: bool | None,
    detected: bool,
    initialised: bool | None,
) -> None:
    database.write_run(record(cells=[cell(checks=[outcome])]))
    query = "SELECT is_compatible, detection_success, initialization_success FROM hardware_compatibility"
    found = [None if str(value) in ("<NA>", "nan", "None") else bool(value) for value in database.sql(query).iloc[0]]
    assert found == [compatible, detected, initialised]


def test_the_next_step_of_an_error_is_the_suggested_fix(database: BenchmarkDatabase) -> None:
    outcome = CheckOutcome("parity", Status.ERROR, Stage.LOAD, "timm is missing\nInstall it with pip.")
    database.write_run(record(cells=[cell(checks=[outcome])]))
    found = database.frame("hardware_compatibility").iloc[0]
    assert (found.error_message, found.suggested_fix) == ("timm is missing", "Install it with pip.")
    assert found.workaround_available


def test_numbers_that_are_not_finite_are_kept(database: BenchmarkDatabase) -> None:
    odd = replace(MEASURED, latency=replace(MEASURED.latency, relative_error=float("inf")))
    outcome = CheckOutcome("parity", measures={"rel_l2": float("nan")})
    database.write_run(record(measurements=[odd], cells=[cell(checks=[outcome])]))
    assert database.measurements() == [odd]
    assert json.loads(database.frame("integration_test_results").metadata[0]) == {"rel_l2": "nan"}


def test_calibrations_of_a_run_belong_to_it(database: BenchmarkDatabase) -> None:
    run = database.write_run(record())
    assert database.calibrations(device="cpu") == [CALIBRATION]
    assert one(database, "SELECT run_id FROM device_calibrations") == run


@pytest.mark.parametrize("broken", [{"started_at": "yesterday"}, {"calibrations": [{**CALIBRATION, "device": None}]}])
def test_a_run_that_cannot_be_written_leaves_nothing(database: BenchmarkDatabase, broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ConfigError)):
        database.write_run(record(**broken))
    for table in ("test_runs", "models", "performance_results", "integration_test_results", "device_calibrations"):
        assert database.frame(table).empty
    database.write_run(record())
    assert database.measurements() == MEASUREMENTS


def test_many_rows_are_written(database: BenchmarkDatabase) -> None:
    many = [replace(MEASURED, batch=batch, model=f"m{batch % 7}") for batch in range(1, 1001)]
    database.write_run(record(measurements=many))
    found: list[Measurement] = database.measurements(weights="random")
    assert found == many
