"""The tables, columns and views of the guides are there, the foreign keys hold, and JSON columns hold JSON."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.history.schema import SCHEMA_VERSION, TABLES, VIEWS
from tests.unit.history.store_samples import prediction, record

# What the guides of the benchmark database say there is.
GUIDE = {
    "hardware_platforms": "hardware_id hardware_type device_name platform platform_version driver_version memory_gb "
    "compute_units metadata",
    "models": "model_id model_name model_family modality source version parameters_million metadata",
    "test_runs": "run_id test_name test_type started_at completed_at execution_time_seconds success git_commit "
    "git_branch command_line metadata",
    "performance_results": "result_id run_id model_id hardware_id test_case batch_size precision total_time_seconds "
    "average_latency_ms throughput_items_per_second memory_peak_mb iterations warmup_iterations metrics",
    "performance_batch_results": "result_id batch_size",
    "hardware_compatibility": "compatibility_id run_id model_id hardware_id is_compatible detection_success "
    "initialization_success error_message error_type suggested_fix workaround_available compatibility_score metadata",
    "integration_test_results": "test_result_id run_id test_module test_class test_name status execution_time_seconds "
    "hardware_id model_id error_message error_traceback metadata",
    "integration_test_assertions": "test_result_id",
}
GUIDE_VIEWS = ("latest_performance_metrics", "model_hardware_compatibility", "integration_test_status")
REFERENCES = [(name, column) for name, table in TABLES.items() for column in table.refers]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with rows in every table; the tests leave it as it is."""
    database = BenchmarkDatabase(tmp_path_factory.mktemp("schema") / "a.duckdb")
    database.write_run(record())
    database.save_predictions([prediction()], created_at="2026-01-30T00:00:00")
    database.save_prediction_model("latency", b"\x00", rows=1, metrics={"mape": 0.1})
    return database.path


def refused(path: Path, statement: str) -> str:
    """Why a statement is refused; it is rolled back in any case."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("BEGIN")
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            return str(error)
        connection.execute("ROLLBACK")
    return ""


@pytest.mark.parametrize("table", GUIDE)
def test_the_columns_of_the_guides_come_first_and_in_their_order(path: Path, table: str) -> None:
    columns = list(BenchmarkDatabase(path).frame(table).columns)
    wanted = GUIDE[table].split()
    assert [column for column in columns if column in wanted] == wanted


@pytest.mark.parametrize("name", [*TABLES, *VIEWS, "schema_version"])
def test_every_table_and_view_has_rows(path: Path, name: str) -> None:
    assert not BenchmarkDatabase(path).frame(name).empty


def test_the_views_of_the_guides_are_there() -> None:
    assert set(GUIDE_VIEWS) < set(VIEWS)


def test_the_table_of_tables_is_the_schema(path: Path) -> None:
    query = "SELECT table_name, constraint_column_names[1] AS number FROM duckdb_constraints() WHERE constraint_type = "
    database = BenchmarkDatabase(path)
    keys = database.sql(f"{query}'PRIMARY KEY'")
    found = dict(zip(keys.table_name, keys.number, strict=True))
    assert found == {"schema_version": "version", **{name: table.number for name, table in TABLES.items()}}
    foreign = database.sql(f"{query}'FOREIGN KEY'")
    assert sorted(zip(foreign.table_name, foreign.number, strict=True)) == sorted(REFERENCES)


@pytest.mark.parametrize(("table", "column"), REFERENCES)
def test_an_orphan_is_refused(path: Path, table: str, column: str) -> None:
    number = TABLES[table].number
    copy = f"INSERT INTO {table} SELECT * REPLACE (%s) FROM {table} LIMIT 1"  # noqa: S608
    new = f"nextval('{table}_ids') AS {number}"
    assert refused(path, copy % new) == ""
    assert "foreign key" in refused(path, copy % f"{new}, 987654 AS {column}")


@pytest.mark.parametrize("parent", sorted({TABLES[table].refers[column] for table, column in REFERENCES}))
def test_a_row_that_others_refer_to_cannot_be_deleted(path: Path, parent: str) -> None:
    assert "foreign key" in refused(path, f"DELETE FROM {parent}")  # noqa: S608


@pytest.mark.parametrize("table", TABLES)
def test_json_columns_hold_json(path: Path, table: str) -> None:
    database = BenchmarkDatabase(path)
    types = database.sql(f"SELECT name FROM pragma_table_info('{table}') WHERE type = 'JSON'")  # noqa: S608
    for column in types.name:
        for text in database.frame(table)[column].dropna():
            json.loads(text)
        assert "Malformed JSON" in refused(path, f"UPDATE {table} SET {column} = '{{bad'")  # noqa: S608


def test_the_version_is_noted(path: Path) -> None:
    row = BenchmarkDatabase(path).frame("schema_version").iloc[-1]
    assert row.version == SCHEMA_VERSION
    assert row.plugin_version
