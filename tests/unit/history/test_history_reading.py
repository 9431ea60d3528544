"""Filters, frames and queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history import BenchmarkDatabase, default_database_path
from tests.unit.history.store_samples import FULL, LATENCY, MEASURED, MEASUREMENTS, TINY, cell, record


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkDatabase:
    database = BenchmarkDatabase(tmp_path_factory.mktemp("reading") / "a.duckdb")
    database.write_run(record())
    return database


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, MEASUREMENTS),
        ({"model": FULL.model}, [FULL]),
        ({"architecture": "BertForMaskedLM"}, [MEASURED, TINY]),
        ({"device": "cuda:0"}, [FULL]),
        ({"device_kind": "cuda"}, [FULL]),
        ({"device_kind": "cpu", "weights": "tiny"}, [TINY]),
        ({"device_name": "AMD EPYC"}, [MEASURED, TINY]),
        ({"dtype": "fp16"}, [FULL]),
        ({"mode": "inference"}, [MEASURED, TINY]),
        ({"only_real_dimensions": True}, [MEASURED, FULL]),
        ({"only_real_dimensions": True, "architecture": "BertForMaskedLM"}, [MEASURED]),
        ({"model": "nobody's'; DROP TABLE models; --"}, []),
    ],
)
def test_measurements_are_filtered(database: BenchmarkDatabase, filters: dict[str, Any], found: list[Any]) -> None:
    assert database.measurements(**filters) == found


def test_a_table_is_a_frame(database: BenchmarkDatabase) -> None:
    frame = database.frame("models")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.model_name) == [MEASURED.model, FULL.model]


def test_an_unknown_table_is_refused_with_the_names_there_are(database: BenchmarkDatabase) -> None:
    with pytest.raises(ConfigError, match=r"'model; DROP' is no table.*performance_results.*prediction_accuracy"):
        database.frame("model; DROP")


def test_a_query_takes_parameters(database: BenchmarkDatabase) -> None:
    query = "SELECT count(*) AS n FROM measured_rows WHERE dtype = "
    assert database.sql(f"{query}?", ["fp16"]).n[0] == 1
    assert database.sql(f"{query}$dtype", {"dtype": "fp32"}).n[0] == 2


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("DELETE FROM models", "read-only"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("COPY models TO 'models.csv'", "disabled by configuration"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SET enable_external_access = true", "."),
    ],
)
def test_a_query_only_reads_this_database(database: BenchmarkDatabase, query: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        database.sql(query)


def test_the_latest_metrics_are_those_of_the_last_run(tmp_path: Path) -> None:
    with BenchmarkDatabase(tmp_path / "a.duckdb") as database:
        newer = replace(MEASURED, latency=replace(LATENCY, median_ms=3.0))
        database.write_run(record(measurements=[newer, TINY], started_at="2026-02-02T00:00:00", cells=[]))
        database.write_run(record(measurements=[MEASURED], cells=[]))
        latest = database.frame("latest_performance_metrics")
    assert sorted(zip(latest.weights, latest.median_ms, strict=True)) == [("random", 3.0), ("tiny", 4.0)]


def test_the_latest_verdict_on_compatibility_outlives_a_run_without_one(tmp_path: Path) -> None:
    database = BenchmarkDatabase(tmp_path / "a.duckdb")
    good = cell(checks=[cell().checks[0]])
    for day, tested in enumerate((cell(), good, cell(checks=[cell().checks[2]])), 1):
        database.write_run(record(cells=[tested], started_at=f"2026-01-0{day}T00:00:00", measurements=[]))
    found = database.frame("model_hardware_compatibility").iloc[0]
    assert (bool(found.is_compatible), found.times_tried, found.times_compatible) == (True, 3, 1)
    status = database.frame("integration_test_status").set_index("test_name").status
    assert dict(status) == {"parity": "passed", "task_sense": "failed", "generation": "skipped"}


@pytest.mark.parametrize(
    ("environ", "path"), [({}, "hfaccel.duckdb"), ({"BENCHMARK_DB_PATH": "/x/y.duckdb"}, "/x/y.duckdb")]
)
def test_the_default_path_comes_from_the_environment(environ: dict[str, str], path: str) -> None:
    assert default_database_path(environ) == Path(path)


def test_the_default_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_DB_PATH", str(tmp_path / "deep" / "b.duckdb"))
    BenchmarkDatabase().write_run(record())
    assert BenchmarkDatabase(tmp_path / "deep" / "b.duckdb", create=False).measurements() == MEASUREMENTS


def test_a_name_that_duckdb_gives_a_meaning_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    BenchmarkDatabase(":memory:").write_run(record())
    assert BenchmarkDatabase(":memory:", create=False).measurements() == MEASUREMENTS
    assert [path.name for path in tmp_path.iterdir()] == [":memory:"]
