"""A database of version 1, as the guides describe it, becomes one of the current version without losing a row."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.history.schema import SCHEMA_VERSION
from tests.unit.history.store_samples import MEASUREMENTS, record

VERSION_1 = """
CREATE TABLE hardware_platforms (hardware_id INTEGER PRIMARY KEY, hardware_type VARCHAR NOT NULL, device_name VARCHAR,
    platform VARCHAR, platform_version VARCHAR, driver_version VARCHAR, memory_gb FLOAT, compute_units INTEGER,
    metadata JSON);
CREATE TABLE models (model_id INTEGER PRIMARY KEY, model_name VARCHAR NOT NULL, model_family VARCHAR, modality VARCHAR,
    source VARCHAR, version VARCHAR, parameters_million FLOAT, metadata JSON);
CREATE TABLE test_runs (run_id INTEGER PRIMARY KEY, test_name VARCHAR NOT NULL, test_type VARCHAR NOT NULL,
    started_at TIMESTAMP, completed_at TIMESTAMP, execution_time_seconds FLOAT, success BOOLEAN, git_commit VARCHAR,
    git_branch VARCHAR, command_line VARCHAR, metadata VARCHAR);
CREATE TABLE performance_results (result_id INTEGER PRIMARY KEY, run_id INTEGER REFERENCES test_runs (run_id),
    model_id INTEGER REFERENCES models (model_id), hardware_id INTEGER REFERENCES hardware_platforms (hardware_id),
    test_case VARCHAR, batch_size INTEGER, precision VARCHAR, total_time_seconds FLOAT, average_latency_ms FLOAT,
    throughput_items_per_second FLOAT, memory_peak_mb FLOAT, iterations INTEGER, warmup_iterations INTEGER,
    metrics JSON);
CREATE TABLE performance_batch_results (batch_result_id INTEGER PRIMARY KEY, result_id INTEGER, batch_size INTEGER);
CREATE TABLE hardware_compatibility (compatibility_id INTEGER PRIMARY KEY, run_id INTEGER, model_id INTEGER,
    hardware_id INTEGER, is_compatible BOOLEAN, detection_success BOOLEAN, initialization_success BOOLEAN,
    error_message VARCHAR, error_type VARCHAR, suggested_fix VARCHAR, workaround_available BOOLEAN,
    compatibility_score FLOAT, metadata JSON);
CREATE TABLE integration_test_results (test_result_id INTEGER PRIMARY KEY, run_id INTEGER, test_module VARCHAR,
    test_class VARCHAR, test_name VARCHAR, status VARCHAR, execution_time_seconds FLOAT, hardware_id INTEGER,
    model_id INTEGER, error_message VARCHAR, error_traceback VARCHAR, metadata JSON);
CREATE TABLE integration_test_assertions (assertion_id INTEGER PRIMARY KEY, test_result_id INTEGER,
    assertion_name VARCHAR, passed BOOLEAN);
CREATE VIEW latest_performance_metrics AS SELECT * FROM performance_results;

INSERT INTO hardware_platforms VALUES (3, 'cuda', 'RTX 3090', 'Linux', '5.15', '535', 24, 82, '{"a": 1}'),
    (4, 'cpu', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO models VALUES (5, 'bert-base-uncased', 'bert', 'text', 'huggingface', '1.0', 110, NULL),
    (6, 't5-small', 't5', 'text', 'huggingface', '1.0', 60.5, '{}');
INSERT INTO test_runs VALUES (7, 'bench', 'performance', '2025-03-02 00:00:00', '2025-03-02 00:01:00', 60, true, 'c',
    'main', 'python bench.py', 'not JSON'), (8, 'bench', 'performance', NULL, NULL, NULL, false, NULL, NULL,
    NULL, '{}');
INSERT INTO performance_results
    SELECT i, 7 + i % 2, 5 + i % 2, 3 + i % 2, 'embedding', i, 'fp32', 1.5, 8.25, 120.5, 850, 100, 10, '{"p50": 8}'
    FROM range(100, 200) t (i);
INSERT INTO performance_batch_results SELECT i, 100 + i, i FROM range(50) t (i);
INSERT INTO hardware_compatibility VALUES (1, 7, 5, 3, true, true, true, NULL, NULL, NULL, NULL, 1.0, NULL);
INSERT INTO integration_test_results VALUES
    (1, 7, 'm', 'c', 't', 'pass', 0.5, 3, 5, NULL, NULL, NULL),
    (2, 8, 'm', 'c', 'u', 'fail', 0.5, NULL, NULL, 'e', 't', '{}');
INSERT INTO integration_test_assertions VALUES (9, 2, 'close', false);
"""
TABLES_1 = (
    "hardware_platforms",
    "models",
    "test_runs",
    "performance_results",
    "performance_batch_results",
    "hardware_compatibility",
    "integration_test_results",
    "integration_test_assertions",
)


def make(path: Path, *more: str) -> dict[str, list[tuple[object, ...]]]:
    """Make a database of version 1, and return its rows by table."""
    with duckdb.connect(str(path)) as connection:
        for script in (VERSION_1, *more):
            connection.execute(script)
        return {table: connection.execute(f"FROM {table} ORDER BY 1").fetchall() for table in TABLES_1}


def test_all_rows_are_kept_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    old = make(path)
    database = BenchmarkDatabase(path)
    with duckdb.connect(str(path), read_only=True) as connection:
        for table, rows in old.items():
            new = [row[: len(rows[0])] for row in connection.execute(f"FROM {table} ORDER BY 1").fetchall()]
            if table == "test_runs":
                # The old text was not JSON: it has become a JSON text.
                assert json.loads(new[0][-1]) == rows[0][-1]
                new[0] = (*new[0][:-1], rows[0][-1])
            assert new == rows, table
    assert list(database.frame("schema_version").version) == [SCHEMA_VERSION]


def test_rows_of_version_1_are_no_measurements_but_metrics(tmp_path: Path) -> None:
    # They do not say which weights ran.
    make(tmp_path / "old.duckdb")
    database = BenchmarkDatabase(tmp_path / "old.duckdb")
    assert database.measurements() == []
    assert len(database.frame("latest_performance_metrics")) == 100


def test_new_rows_follow_the_old_ones(tmp_path: Path) -> None:
    make(tmp_path / "old.duckdb")
    database = BenchmarkDatabase(tmp_path / "old.duckdb")
    assert database.write_run(record()) == 9
    assert database.measurements() == MEASUREMENTS
    assert database.frame("performance_results").result_id.is_unique
    assert len(database.frame("performance_results")) == 103


def test_the_migrated_database_opens_again(tmp_path: Path) -> None:
    make(tmp_path / "old.duckdb")
    BenchmarkDatabase(tmp_path / "old.duckdb").write_run(record())
    assert BenchmarkDatabase(tmp_path / "old.duckdb").measurements() == MEASUREMENTS


def test_foreign_keys_hold_after_the_migration(tmp_path: Path) -> None:
    make(tmp_path / "old.duckdb")
    BenchmarkDatabase(tmp_path / "old.duckdb")
    with (
        duckdb.connect(str(tmp_path / "old.duckdb")) as connection,
        pytest.raises(duckdb.ConstraintException, match="foreign key"),
    ):
        connection.execute("INSERT INTO performance_batch_results (result_id) VALUES (12345)")


def test_columns_of_ones_own_are_kept_in_a_copy(tmp_path: Path) -> None:
    make(tmp_path / "old.duckdb", "ALTER TABLE integration_test_assertions ADD COLUMN mine VARCHAR DEFAULT 'kept'")
    database = BenchmarkDatabase(tmp_path / "old.duckdb")
    assert list(database.sql("SELECT mine FROM before_migration_integration_test_assertions").mine) == ["kept"]
    assert len(database.frame("integration_test_assertions")) == 1


def test_tables_and_views_of_ones_own_are_left_alone(tmp_path: Path) -> None:
    mine = (
        "CREATE TABLE notes (text VARCHAR); INSERT INTO notes VALUES ('hello'); CREATE VIEW my_runs AS FROM test_runs"
    )
    make(tmp_path / "old.duckdb", mine)
    database = BenchmarkDatabase(tmp_path / "old.duckdb")
    assert list(database.sql("SELECT text FROM notes").text) == ["hello"]
    assert list(database.sql("SELECT run_id FROM my_runs ORDER BY 1").run_id) == [7, 8]


@pytest.mark.parametrize(
    ("table", "orphan", "named"),
    [
        ("performance_batch_results", "VALUES (999, 12345, 1)", "foreign key"),
        ("integration_test_assertions", "VALUES (999, 12345, 'x', true)", "foreign key"),
        ("hardware_compatibility", "(compatibility_id, model_id, hardware_id) VALUES (2, 5, 3)", "run_id"),
    ],
)
def test_rows_that_contradict_each_other_are_named_and_nothing_is_changed(
    tmp_path: Path, table: str, orphan: str, named: str
) -> None:
    path = tmp_path / "old.duckdb"
    old = make(path, f"INSERT INTO {table} {orphan}")
    with pytest.raises(ConfigError, match=rf"old\.duckdb: .* of {table} cannot be migrated: .*{named}") as caught:
        BenchmarkDatabase(path)
    assert "Nothing was changed" in str(caught.value)
    with duckdb.connect(str(path), read_only=True) as connection:
        for name, rows in old.items():
            assert connection.execute(f"FROM {name} ORDER BY 1").fetchall() == rows
        assert not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchall()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    BenchmarkDatabase(path).write_run(record())
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, now()::TIMESTAMP, '9.0')")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"new\.duckdb: the database has schema version 99; .* 1 to 2") as caught:
        BenchmarkDatabase(path)
    assert "Update pytest-hfaccel" in str(caught.value)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="not one of pytest-hfaccel: it holds customers"):
        BenchmarkDatabase(path)
    assert path.read_bytes() == before


def test_an_empty_duckdb_database_is_taken(tmp_path: Path) -> None:
    duckdb.connect(str(tmp_path / "empty.duckdb")).close()
    database = BenchmarkDatabase(tmp_path / "empty.duckdb")
    database.write_run(record())
    assert database.measurements() == MEASUREMENTS
