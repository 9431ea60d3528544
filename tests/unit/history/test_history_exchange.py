"""Parquet files and frames carry everything there and back, each run once."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.history import BenchmarkDatabase, open_measurements
from pytest_hfaccel.history.schema import ORDERS, TABLES, VIEWS
from pytest_hfaccel.reporting import Journal
from tests.unit.history.store_samples import CALIBRATION, FULL, MEASURED, MEASUREMENTS, TINY, cell, prediction, record


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkDatabase:
    """A database with rows in every table; the tests leave it as it is."""
    database = BenchmarkDatabase(tmp_path_factory.mktemp("exchange") / "a.duckdb")
    database.write_run(record())
    database.write_run(record(measurements=[TINY, FULL], started_at="2026-01-31T12:00:01"))
    database.save_calibration({**CALIBRATION, "dtype": "bf16"})
    database.save_predictions([prediction(), prediction()], created_at="2026-01-30T00:00:00")
    database.save_prediction_model("latency", b"\x00\xff'", rows=1, metrics={"mape": 0.1})
    return database


@pytest.fixture
def target(tmp_path: Path) -> BenchmarkDatabase:
    """A database with a run of its own, so that numbers are taken."""
    target = BenchmarkDatabase(tmp_path / "target" / "b.duckdb")
    target.write_run(record(measurements=[MEASURED], calibrations=[], started_at="2026-01-01T00:00:00"))
    return target


def contents(database: BenchmarkDatabase) -> dict[str, pd.DataFrame]:
    return {name: database.frame(name) for name in (*ORDERS, *VIEWS)}


def test_a_directory_holds_everything(database: BenchmarkDatabase, tmp_path: Path) -> None:
    files = database.export_parquet(tmp_path / "out")
    assert {path.stem for path in files} == {*TABLES, "schema_version"}
    copy = BenchmarkDatabase(tmp_path / "copy.duckdb")
    added = copy.import_parquet(tmp_path / "out")
    assert added == {name: len(database.frame(name)) for name in TABLES}
    for name, frame in contents(database).items():
        if name != "schema_version":
            pd.testing.assert_frame_equal(copy.frame(name), frame)


def test_a_file_holds_the_measurements_and_their_runs(
    database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path
) -> None:
    assert database.export_parquet(tmp_path / "m.parquet") == [tmp_path / "m.parquet"]
    assert target.import_parquet(tmp_path / "m.parquet") == {"test_runs": 2, "performance_results": 5}
    assert target.measurements() == [MEASURED, *MEASUREMENTS, TINY, FULL]
    columns = ["run_key", "started_at", "git_commit", "versions", "machine", "model", "median_ms"]
    pd.testing.assert_frame_equal(
        target.frame("measured_rows")[columns].iloc[1:].reset_index(drop=True),
        database.frame("measured_rows")[columns],
    )


def test_rows_are_numbered_anew_among_those_that_are_there(
    database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path
) -> None:
    database.export_parquet(tmp_path / "out")
    target.import_parquet(tmp_path / "out")
    assert target.measurements() == [MEASURED, *MEASUREMENTS, TINY, FULL]
    assert len(target.frame("models")) == 2
    assert len(target.frame("hardware_platforms")) == 2
    assert len(target.frame("integration_test_assertions")) == 3 * 4
    joined = target.sql(
        "SELECT r.run_key, count(*) AS n FROM integration_test_assertions JOIN integration_test_results "
        "USING (test_result_id) JOIN test_runs r USING (run_id) GROUP BY ALL"
    )
    assert list(joined.n) == [4, 4, 4]


@pytest.mark.parametrize("where", ["out", "m.parquet"])
def test_what_is_there_already_is_left_alone(
    database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path, where: str
) -> None:
    database.export_parquet(tmp_path / where)
    target.import_parquet(tmp_path / where)
    before = contents(target)
    assert not any(target.import_parquet(tmp_path / where).values())
    for name, frame in contents(target).items():
        pd.testing.assert_frame_equal(frame, before[name])


def test_two_databases_become_one(database: BenchmarkDatabase, target: BenchmarkDatabase) -> None:
    assert target.merge(database.path)["test_runs"] == 2
    assert not any(target.merge(database.path).values())
    assert not any(target.merge(target.path).values())
    assert target.measurements() == [MEASURED, *MEASUREMENTS, TINY, FULL]
    assert target.load_prediction_model("latency") == database.load_prediction_model("latency")
    assert {each["dtype"] for each in target.calibrations()} == {"fp32", "bf16"}


def test_frames_go_there_and_back(database: BenchmarkDatabase, target: BenchmarkDatabase) -> None:
    frame = database.frame("measured_rows")
    assert target.import_frame(frame[frame.weights != "tiny"]) == 3
    assert target.measurements() == [MEASURED, MEASURED, FULL, FULL]
    assert target.import_frame(frame) == 0


def test_a_frame_of_something_else_is_refused(database: BenchmarkDatabase, target: BenchmarkDatabase) -> None:
    with pytest.raises(ConfigError, match=r"the frame: .*without .*median_ms.*run_key"):
        target.import_frame(database.frame("models"))


def write_parquet(query: str, path: Path) -> None:
    rows = duckdb.sql(query)
    assert rows is not None
    rows.write_parquet(str(path))


def test_a_parquet_file_of_something_else_is_refused(target: BenchmarkDatabase, tmp_path: Path) -> None:
    path = tmp_path / "other's.parquet"
    write_parquet("SELECT 1 AS a", path)
    with pytest.raises(ConfigError, match=r"other's\.parquet: these are not the measurements"):
        target.import_parquet(path)


@pytest.mark.parametrize(("name", "problem"), [("no.parquet", "no such file"), ("bad.parquet", "damaged")])
def test_a_parquet_file_that_cannot_be_read(target: BenchmarkDatabase, tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(ConfigError, match=rf"{name}: .*({problem})"):
        target.import_parquet(tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name}: .*({problem})"):
        open_measurements(tmp_path / name)


def test_an_import_that_fails_leaves_nothing(
    database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path
) -> None:
    database.export_parquet(tmp_path / "out")
    (tmp_path / "out" / "prediction_models.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(ConfigError, match="prediction_models"):
        target.import_parquet(tmp_path / "out")
    assert target.measurements() == [MEASURED]


def test_an_export_of_another_version_is_refused(
    database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path
) -> None:
    database.export_parquet(tmp_path / "out")
    file = tmp_path / "out" / "schema_version.parquet"
    write_parquet("SELECT 77 AS version", file)
    with pytest.raises(ConfigError, match="this export has schema version 77"):
        target.import_parquet(tmp_path / "out")


def test_an_empty_directory_is_refused(target: BenchmarkDatabase, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="contains no Parquet file"):
        target.import_parquet(tmp_path / "nothing")


def test_odd_names_are_names(database: BenchmarkDatabase, target: BenchmarkDatabase, tmp_path: Path) -> None:
    # To DuckDB they are wildcards, a column of all rows, the end of a text.
    for place in ("run_id=3/m[1]*?.parquet", "it's/all", "it's/m.parquet"):
        database.export_parquet(tmp_path / place)
        assert open_measurements(tmp_path / place) == MEASUREMENTS
        target.import_parquet(tmp_path / place)
    assert target.measurements() == [MEASURED, *MEASUREMENTS, TINY, FULL]


def test_an_export_replaces_files_as_a_whole(database: BenchmarkDatabase, tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_text("an older one")
    database.export_parquet(tmp_path / "m.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["m.parquet"]
    assert open_measurements(tmp_path / "m.parquet") == MEASUREMENTS


@pytest.fixture
def places(database: BenchmarkDatabase, tmp_path: Path) -> Path:
    """A directory with the same measurements in every form."""
    database.export_parquet(tmp_path / "tables")
    database.export_parquet(tmp_path / "flat" / "m.parquet")
    measures = {"measurements": [each.to_json() for each in MEASUREMENTS]}
    result = cell(checks=[CheckOutcome("performance", measures=measures)])
    journal = Journal(tmp_path / "reports" / "journal.jsonl", {"machine": {}})
    journal.append(result)
    journal.close()
    (tmp_path / "reports" / "cells.json").write_text(json.dumps({"cells": [result.to_json()]}))
    (tmp_path / "reports" / "notes.txt").write_text("no report")
    return tmp_path


@pytest.mark.parametrize("place", ["tables", "flat", "flat/m.parquet", "reports", "reports/journal.jsonl", "."])
def test_measurements_are_opened_wherever_they_are(places: Path, place: str) -> None:
    found = open_measurements(places / place)
    assert len(found) == len(MEASUREMENTS)
    assert all(each in found for each in MEASUREMENTS)


def test_measurements_of_a_database_are_opened(database: BenchmarkDatabase) -> None:
    assert open_measurements(database.path) == MEASUREMENTS
    assert open_measurements(database.path.parent) == MEASUREMENTS


def test_the_torn_last_line_of_a_killed_run_is_left_out(places: Path) -> None:
    journal = places / "reports" / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"type": "ce')
    assert len(open_measurements(journal)) == len(MEASUREMENTS)
    journal.write_text('{"type": "ce\n' + journal.read_text())
    with pytest.raises(ConfigError, match=r"journal\.jsonl:1: this cannot be read: "):
        open_measurements(journal)


def test_a_number_that_was_changed_on_disk_is_told(places: Path) -> None:
    journal = places / "reports" / "journal.jsonl"
    text = journal.read_text()
    line = next(number for number, line in enumerate(text.splitlines(), 1) if '"p99_ms": ' in line)
    journal.write_text(text.replace('"p99_ms": ', '"p99_ms": 1', 1))
    with pytest.raises(ConfigError, match=rf"journal\.jsonl:{line}: this cannot be read: its checksum is another"):
        open_measurements(journal)


def test_a_measurement_that_is_not_complete_is_told(tmp_path: Path) -> None:
    half = MEASURED.to_json()
    del half["latency"]["p99_ms"]
    (tmp_path / "a.json").write_text(json.dumps([half]))
    with pytest.raises(ConfigError, match=r"a\.json:1: a measurement of 'bert-base-uncased' is not complete: .*p99_ms"):
        open_measurements(tmp_path)


def test_places_without_measurements(tmp_path: Path) -> None:
    assert open_measurements(tmp_path) == []
    with pytest.raises(ConfigError, match="no such file or directory"):
        open_measurements(tmp_path / "nowhere")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ConfigError, match=r"a\.csv: \.csv is not a file with measurements.* Allowed: \.duckdb"):
        open_measurements(tmp_path / "a.csv")
