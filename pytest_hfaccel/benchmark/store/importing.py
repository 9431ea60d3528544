"""Parquet files, frames and other databases into the database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.exporting import VERSION_FILE
from pytest_hfaccel.benchmark.store.merging import Merge, Row, rows_of_relation
from pytest_hfaccel.benchmark.store.parquet import SUFFIX, rows_in
from pytest_hfaccel.benchmark.store.performance import COLUMNS, measurement_of
from pytest_hfaccel.benchmark.store.problems import explained
from pytest_hfaccel.benchmark.store.records import RunRecord
from pytest_hfaccel.benchmark.store.schema import SCHEMA_VERSION
from pytest_hfaccel.benchmark.store.writing import write
from pytest_hfaccel.errors import ConfigError

_RUN_COLUMNS = (
    "run_key",
    "test_name",
    "test_type",
    "started_at",
    "completed_at",
    "success",
    "git_commit",
    "git_branch",
    "command_line",
    "versions",
    "machine",
)


def import_files(connection: Any, path: Path) -> dict[str, int]:
    """Take over what `export` wrote, and return how many rows were new, by table.

    Args:
        connection: An open DuckDB connection, in a transaction.
        path: A Parquet file of measurements, a directory of such files, or a directory with a file per table.

    Raises:
        ConfigError: There is nothing of the kind, a file is damaged, or it is of another schema version.
    """
    if is_whole(path):
        return import_tables(connection, path)
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(
            f"{path}: this directory holds no Parquet file",
            hint="Name a directory or a file that `hfaccel db export` wrote.",
        )
    counts = [import_rows(connection, measured_rows(connection, file)) for file in files]
    return {"test_runs": sum(runs for runs, _ in counts), "performance_results": sum(rows for _, rows in counts)}


def is_whole(path: Path) -> bool:
    """Whether a directory holds a file per table, not files of measurements."""
    return (path / VERSION_FILE).is_file()


def import_tables(connection: Any, directory: Path) -> dict[str, int]:
    """Take over a directory with a file per table; see `import_files`."""

    def rows_of(table: str) -> list[Row]:
        file = directory / f"{table}{SUFFIX}"
        with explained(file):
            return rows_of_relation(connection, rows_in(file))

    [version] = {max(row["version"] for row in rows_of("schema_version"))}
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{directory}: this export has schema version {version}; version {SCHEMA_VERSION} can be imported",
            hint="Open the database it was made from with this version of pytest-hfaccel, and export it again.",
        )
    return Merge(connection, rows_of).run()


def import_frame(connection: Any, frame: Any) -> tuple[int, int]:
    """Write the rows of a pandas frame with the columns of `measured_rows`; see `import_rows`.

    Raises:
        ConfigError: The frame lacks a column.
    """
    check_columns("the frame", list(frame.columns))
    connection.register("given_frame", frame)
    return import_rows(connection, rows_of_relation(connection, "given_frame"))


def measured_rows(connection: Any, file: Path) -> list[Row]:
    """Return the rows of a Parquet file of measurements.

    Raises:
        ConfigError: It is missing, damaged, or holds something else.
    """
    with explained(file):
        rows = rows_of_relation(connection, rows_in(file))
        check_columns(str(file), [column[0] for column in connection.description])
    return rows


def check_columns(place: str, columns: Sequence[str]) -> None:
    """See to it that rows hold measurements.

    Raises:
        ConfigError: They do not.
    """
    missing = sorted({*COLUMNS, *_RUN_COLUMNS} - set(columns))
    if missing:
        raise ConfigError(
            f"{place}: these are not the measurements of a benchmark database: without {', '.join(missing)}",
            hint="Such rows come from `hfaccel db export FILE.parquet` or from BenchmarkDatabase.frame"
            "('measured_rows').",
        )


def import_rows(connection: Any, rows: Sequence[Row]) -> tuple[int, int]:
    """Write measurements with the runs they come from, and return how many runs and measurements were new.

    Args:
        connection: An open DuckDB connection, in a transaction.
        rows: Rows of the view `measured_rows`.
    """
    known = {key for (key,) in connection.execute("SELECT run_key FROM test_runs").fetchall()}
    runs = 0
    measurements = 0
    for key, record in _records(rows):
        if key not in known:
            write(connection, record, run_key=key)
            runs += 1
            measurements += len(record.measurements)
    return runs, measurements


def _records(rows: Sequence[Row]) -> Iterator[tuple[str, RunRecord]]:
    def of_run(row: Row) -> tuple[str, str]:
        return str(row["started_at"]), row["run_key"]

    for (_, key), group in groupby(sorted(rows, key=of_run), key=of_run):
        members = list(group)
        facts = {name: members[0][name] for name in _RUN_COLUMNS if name != "run_key"}
        facts.update({name: json.loads(facts[name] or "{}") for name in ("versions", "machine")})
        yield key, RunRecord(**facts, measurements=[measurement_of(row) for row in members])
