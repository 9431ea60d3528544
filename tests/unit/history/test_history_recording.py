"""From the records of a run to the rows of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Status
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.history.recording import make_record, measurements_of, with_family
from tests.unit.history.store_samples import MEASURED

HEADER: dict[str, Any] = {
    "started": "2026-01-31T12:00:00+00:00",
    "finished": "2026-01-31T12:01:00+00:00",
    "command": "pytest --hf-performance",
    "machine": {"os": "Linux"},
}


def cell(status: Status = Status.PASSED) -> CellResult:
    names = ("model", "architecture", "task", "device", "dtype", "weights")
    facts = {name: getattr(MEASURED, name) for name in names}
    measured = CheckOutcome("performance", measures={"measurements": [MEASURED.to_json()]})
    return CellResult(cell="a-cpu-fp32", module="bert", **facts, checks=[CheckOutcome("parity", status), measured])


def test_measurements_are_found_in_the_checks() -> None:
    assert measurements_of([cell(), cell()]) == [MEASURED, MEASURED]


def test_the_family_is_filled_in() -> None:
    assert with_family(MEASURED).family == "embedding"


def test_a_record_of_a_run(tmp_path: Path) -> None:
    found = make_record(HEADER, test_name="pytest", cells=[cell()], measurements=[MEASURED], directory=tmp_path)
    assert (found.test_type, found.success, len(found.measurements)) == ("performance", True, 2)
    assert found.versions["torch"]
    assert (found.git_commit, found.git_branch) == ("", "")
    failed = make_record(HEADER, test_name="pytest", cells=[cell(Status.FAILED)], directory=tmp_path)
    assert not failed.success
    assert make_record(HEADER, test_name="pytest", directory=tmp_path).test_type == "integration"


def test_rows_of_the_database(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hfaccel.duckdb"
    record = make_record(HEADER, test_name="pytest", cells=[cell()], directory=tmp_path)
    assert BenchmarkDatabase(path).write_run(record) == 1
    assert BenchmarkDatabase(path).write_run(record) == 2
    database = BenchmarkDatabase(path, create=False)
    assert [one.family for one in database.measurements()] == ["embedding"] * 2
    assert len(database.frame("hardware_compatibility")) == 2


def test_a_damaged_file_is_a_clear_error_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hfaccel.duckdb"
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(ConfigError, match=r"hfaccel\.duckdb: this file is not a DuckDB database"):
        BenchmarkDatabase(path).write_run(make_record(HEADER, test_name="pytest", directory=tmp_path))
    assert path.read_bytes().startswith(b"something else")
