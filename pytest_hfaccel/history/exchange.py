"""Import and export: Parquet files, frames, journals and other databases."""

from __future__ import annotations

import glob
import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history.connection import connected, explained
from pytest_hfaccel.history.recording import RunRecord, measurements_in, with_family
from pytest_hfaccel.history.rows import COLUMNS, Row, measurement_of, utc, write
from pytest_hfaccel.history.schema import ORDERS, SCHEMA_VERSION, TABLES, VIEWS, Table, columns_of, version_of
from pytest_hfaccel.reporting import read_journal

PARQUET = ".parquet"
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


def export(connection: Any, target: Path) -> list[Path]:
    """Write the database to Parquet files, each as a whole, and return them.

    Raises:
        ConfigError: A file cannot be written; the old one, if there was one, still stands.
    """
    if target.suffix == PARQUET and not target.is_dir():
        return [_copy_out(connection, "measured_rows", VIEWS["measured_rows"], target)]
    return [_copy_out(connection, name, order, target / f"{name}{PARQUET}") for name, order in ORDERS.items()]


def _copy_out(connection: Any, name: str, order: str, path: Path) -> Path:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            to = f"{_literal(str(draft.absolute()))} (FORMAT parquet, COMPRESSION zstd)"
            connection.execute(f"COPY (FROM {name} ORDER BY {order}) TO {to}")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return path


def import_files(connection: Any, path: Path) -> dict[str, int]:
    """Import what `export` wrote, and return how many rows were new, by table.

    The path is a Parquet file of measurements, a directory of such files, or a directory with a file per table.

    Raises:
        ConfigError: There is nothing of the kind, a file is damaged, or it is of another schema version.
    """
    if has_all_tables(path):
        return import_tables(connection, path)
    files = sorted(path.glob(f"*{PARQUET}")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(
            f"{path}: this directory contains no Parquet file",
            hint="Name a directory or a file that `hfaccel db export` wrote.",
        )
    counts = [import_rows(connection, measured_rows(connection, file)) for file in files]
    return {"test_runs": sum(runs for runs, _ in counts), "performance_results": sum(rows for _, rows in counts)}


def has_all_tables(path: Path) -> bool:
    """Whether a directory holds a file per table, not files of measurements."""
    return (path / f"schema_version{PARQUET}").is_file()


def import_tables(connection: Any, directory: Path) -> dict[str, int]:
    """Take over a directory with a file per table; return how many rows were new, by table.

    Rows get new numbers. A run that is here already, by its key, is left as it is, with all that belongs to it, so
    that importing the same directory twice changes nothing. Inside one transaction.
    """
    source = directory / f"schema_version{PARQUET}"
    with explained(source):
        [(version,)] = connection.execute(f"SELECT max(version) FROM {_rows_in(source)}").fetchall()  # noqa: S608
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{directory}: this export has schema version {version}; version {SCHEMA_VERSION} can be imported",
            hint="Open the database it was made from with this version of pytest-hfaccel, and export it again.",
        )
    return {name: _import_table(connection, name, table, directory) for name, table in TABLES.items()}


def _import_table(connection: Any, name: str, table: Table, directory: Path) -> int:
    """Copy the new rows of a file to its table, and note in `numbers_<table>` which number each row has here."""
    file = directory / f"{name}{PARQUET}"
    number, source = table.number, _rows_in(file)
    known, owners = "NULL::BIGINT", ""
    if table.key:
        same = " AND ".join(f"here.{column} IS NOT DISTINCT FROM theirs.{column}" for column in table.key)
        known = f"(SELECT max(here.{number}) FROM {name} here WHERE {same})"  # noqa: S608 - our own names
    else:  # it is new if the run that it belongs to is
        owners = "".join(
            f" JOIN numbers_{parent} AS of_{parent} ON of_{parent}.old = theirs.{column} AND of_{parent}.is_new"
            for column, parent in table.refers.items()
            if not TABLES[parent].shared
        )
    parents = "".join(
        f" LEFT JOIN numbers_{parent} AS of_{parent} ON of_{parent}.old = theirs.{column}"
        for column, parent in table.refers.items()
    )
    columns = [column for column in columns_of(connection, name) if column != number]
    refers = {column: f"of_{parent}.number" for column, parent in table.refers.items()}
    values = ["here.number", *(refers.get(column, f"theirs.{column}") for column in columns)]
    with explained(file):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE numbers_{name} AS SELECT old, known IS NULL AS is_new, "  # noqa: S608
            f"CASE WHEN known IS NULL THEN nextval('{name}_ids') ELSE known END AS number FROM "
            f"(SELECT theirs.{number} AS old, {known} AS known FROM {source} theirs{owners} ORDER BY old)"
        )
        connection.execute(
            f"INSERT INTO {name} ({', '.join([number, *columns])}) SELECT {', '.join(values)} FROM {source} theirs "  # noqa: S608
            f"JOIN numbers_{name} here ON here.old = theirs.{number} AND here.is_new{parents} ORDER BY here.number"
        )
        [(count,)] = connection.execute(f"SELECT count(*) FROM numbers_{name} WHERE is_new").fetchall()  # noqa: S608
    return int(count)


def import_database(path: Path, connect: Any, *, wait_s: float) -> dict[str, int]:
    """Take over all of another database; return how many rows were new, by table.

    It is exported before anything is written: two processes that take each other's database over do not lock each
    other out.

    Args:
        path: Its file; it is only read.
        connect: Opens a transaction in the database that takes it over.
        wait_s: How long to wait, in seconds, while another process has the file open.

    Raises:
        ConfigError: It is missing, none of ours, or of another schema version.
    """
    version = version_of(path, wait_s=wait_s)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: this database has schema version {version}; version {SCHEMA_VERSION} can be taken over",
            hint=f"Bring it to the current version first: hfaccel db migrate --db-path {path}",
        )
    with tempfile.TemporaryDirectory() as folder:
        with connected(path, write=False, wait_s=wait_s) as connection:
            export(connection, Path(folder))
        with connect() as connection:
            return import_tables(connection, Path(folder))


def import_frame(connection: Any, frame: Any) -> tuple[int, int]:
    """Write the rows of a pandas frame with the columns of `measured_rows`; see `import_rows`.

    Raises:
        ConfigError: The frame lacks a column.
    """
    connection.register("frame_to_import", frame)
    return import_rows(connection, _measured_rows(connection, "frame_to_import", "the frame"))


def measured_rows(connection: Any, file: Path) -> list[Row]:
    """Return the rows of a Parquet file of measurements.

    Raises:
        ConfigError: It is missing, damaged, or holds something else.
    """
    with explained(file):
        return _measured_rows(connection, _rows_in(file), str(file))


def _measured_rows(connection: Any, relation: str, place: str) -> list[Row]:
    answer = connection.execute(f"SELECT * FROM {relation}")  # noqa: S608 - our own names and quoted files
    columns = [column[0] for column in answer.description]
    missing = sorted({*COLUMNS, *_RUN_COLUMNS} - set(columns))
    if missing:
        raise ConfigError(
            f"{place}: these are not the measurements of a benchmark database: without {', '.join(missing)}",
            hint="Such rows come from `hfaccel db export FILE.parquet` or from BenchmarkDatabase.frame"
            "('measured_rows').",
        )
    return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]


def import_rows(connection: Any, rows: Sequence[Row]) -> tuple[int, int]:
    """Write measurements with the runs they come from, and return how many runs and measurements were new."""
    known = {key for (key,) in connection.execute("SELECT run_key FROM test_runs").fetchall()}
    new = [(key, record) for key, record in _records(rows) if key not in known]
    for key, record in new:
        write(connection, record, run_key=key)
    return len(new), sum(len(record.measurements) for _, record in new)


def _records(rows: Sequence[Row]) -> Iterator[tuple[str, RunRecord]]:
    def of_run(row: Row) -> tuple[str, str]:
        return str(row["started_at"]), row["run_key"]

    for (_, key), group in groupby(sorted(rows, key=of_run), key=of_run):
        members = list(group)
        facts = {name: members[0][name] for name in _RUN_COLUMNS if name != "run_key"}
        facts.update({name: json.loads(facts[name] or "{}") for name in ("versions", "machine")})
        yield key, RunRecord(**facts, measurements=[measurement_of(row) for row in members])


def import_journal(connection: Any, path: Path) -> dict[str, int]:
    """Write the run a journal tells of, unless it is there already; return how many rows were new, by table.

    It is there when a run began at the same time with the same command: a run that wrote to the database itself does
    not know the key that its journal makes.

    Raises:
        ConfigError: It cannot be read, or has lost its first line.
    """
    contents = read_journal(path)
    header = contents.header
    run = header.get("run", {})
    if "started" not in run:
        raise ConfigError(
            f"{path}: the first line of this journal, which describes the run, is missing or damaged",
            hint="Name the `journal.jsonl` of a run, as docs/reports.md describes it.",
        )
    key = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(header, sort_keys=True)))
    command = run.get("command", "")
    same = connection.execute(
        "SELECT 1 FROM test_runs WHERE run_key = ? OR (started_at = ? AND command_line = ?)",
        [key, utc(run["started"]), command],
    ).fetchone()
    if same is not None:
        return {"test_runs": 0, "performance_results": 0}
    record = RunRecord(
        test_name="pytest",
        test_type="integration",
        started_at=run["started"],
        completed_at=_end(path),
        success=contents.is_complete and not any(result.status.is_bad for result in contents.results),
        git_commit=header.get("commit") or "",
        command_line=command,
        versions=header.get("versions", {}),
        machine=header.get("machine", {}),
        measurements=[with_family(one) for one in measurements_in([each.to_json() for each in contents.results])],
        cells=contents.results,
    )
    write(connection, record, run_key=key)
    return {"test_runs": 1, "performance_results": len(record.measurements)}


def _end(path: Path) -> datetime | str:
    """When the run ended; of a run that was killed, when it wrote its last line."""
    try:
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        return str(last["finished"])
    except (ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _rows_in(path: Path) -> str:
    """The SQL relation of the rows of a file: of this one, whatever its name and its directories mean."""
    return f"read_parquet({_literal(glob.escape(str(path.absolute())))}, hive_partitioning = false)"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
