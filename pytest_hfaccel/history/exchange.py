"""Import and export: Parquet files, frames, journals and other databases."""

from __future__ import annotations

import glob
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history.connection import connected, explained
from pytest_hfaccel.history.rows import COLUMNS, RunRecord, insert, measurement_of, measurements_in, utc, write
from pytest_hfaccel.history.schema import SCHEMA_VERSION, TABLES, VIEWS, Table, version_of
from pytest_hfaccel.reporting import read_journal

PARQUET = ".parquet"


def quoted(path: Path) -> str:
    """Return the name of a file that is written, as an SQL literal."""
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def rows_in(path: Path) -> str:
    """Return the SQL relation of the rows of a file: of this one, whatever its name and its directories mean."""
    literal = quoted(Path(glob.escape(str(path.absolute()))))
    return f"read_parquet({literal}, hive_partitioning = false)"


Row = dict[str, Any]


class Merge:
    """Takes the rows of another database over; inside one transaction.

    Rows get new numbers. A run that is here already, by its key, is left as it is, with all that belongs to it, so
    that taking the same database over twice changes nothing.
    """

    def __init__(self, connection: Any, rows_of: Callable[[str], list[Row]]) -> None:
        self._connection = connection
        self._rows_of = rows_of
        self._numbers: dict[str, dict[int, int]] = {}
        self._new: dict[str, set[int]] = {}

    def run(self) -> dict[str, int]:
        """Take everything over, and return how many rows were new, by table."""
        return {name: self._merge(name, table) for name, table in TABLES.items()}

    def _merge(self, name: str, table: Table) -> int:
        rows = self._rows_of(name)
        known = self._known(name, table) if table.key else {}
        same = {row[table.number]: known.get(_number_key(row, table)) for row in rows}
        here = {old: number for old, number in same.items() if number is not None}
        added = [row for row in rows if row[table.number] not in here and self._belongs_to_new(row, table)]
        numbers = insert(self._connection, name, [dict(self._translated(row, table)) for row in added])
        new = {row[table.number]: number for row, number in zip(added, numbers, strict=True)}
        self._numbers[name] = {**here, **new}
        self._new[name] = set(new)
        return len(new)

    def _known(self, name: str, table: Table) -> dict[tuple[Any, ...], int]:
        query = f"SELECT {table.number}, {', '.join(table.key)} FROM {name}"  # noqa: S608 - our own names
        return {tuple(row[1:]): row[0] for row in self._connection.execute(query).fetchall()}

    def _belongs_to_new(self, row: Mapping[str, Any], table: Table) -> bool:
        if table.key:
            return True
        owners = {column: parent for column, parent in table.refers.items() if not TABLES[parent].shared}
        return all(row[column] in self._new[parent] for column, parent in owners.items())

    def _translated(self, row: Mapping[str, Any], table: Table) -> Iterator[tuple[str, Any]]:
        for column, value in row.items():
            if column in table.refers and value is not None:
                yield column, self._numbers[table.refers[column]][value]
            elif column != table.number:
                yield column, value


def _number_key(row: Mapping[str, Any], table: Table) -> tuple[Any, ...]:
    return tuple(row[column] for column in table.key)


def rows_of_relation(connection: Any, relation: str) -> list[Row]:
    """Return the rows of a table, a view or a file that DuckDB can read, as dictionaries."""
    found = connection.execute(f"SELECT * FROM {relation}")  # noqa: S608 - our own names and quoted files
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def rows_of_database(path: Path, *, wait_s: float) -> dict[str, list[Row]]:
    """Return the rows of every table.

    They are read before anything is written: two processes that take each other's database over do not lock each
    other out.

    Raises:
        ConfigError: It is missing, none of ours, or of another schema version.
    """
    version = version_of(path, wait_s=wait_s)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: this database has schema version {version}; version {SCHEMA_VERSION} can be taken over",
            hint=f"Bring it to the current version first: hfaccel db migrate --db-path {path}",
        )
    with connected(path, write=False, wait_s=wait_s) as connection:
        return {table: rows_of_relation(connection, table) for table in TABLES}


VERSION_FILE = f"schema_version{PARQUET}"


def export(connection: Any, target: Path) -> list[Path]:
    """Write the database to Parquet files, each as a whole, and return them.

    Raises:
        ConfigError: A file cannot be written; the old one, if there was one, still stands.
    """
    if target.suffix == PARQUET and not target.is_dir():
        return [_copy(connection, f"(FROM measured_rows ORDER BY {VIEWS['measured_rows']})", target)]
    names = {name: table.number for name, table in TABLES.items()} | {"schema_version": "version"}
    return [
        _copy(connection, f"(FROM {name} ORDER BY {number})", target / f"{name}{PARQUET}")
        for name, number in names.items()
    ]


def _copy(connection: Any, rows: str, path: Path) -> Path:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection.execute(f"COPY {rows} TO {quoted(draft)} (FORMAT parquet, COMPRESSION zstd)")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    return path


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
    """Import what `export` wrote, and return how many rows were new, by table.

    The path is a Parquet file of measurements, a directory of such files, or a directory with a file per table.

    Raises:
        ConfigError: There is nothing of the kind, a file is damaged, or it is of another schema version.
    """
    if is_whole(path):
        return import_tables(connection, path)
    files = sorted(path.glob(f"*{PARQUET}")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(
            f"{path}: this directory contains no Parquet file",
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
        file = directory / f"{table}{PARQUET}"
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
    """Write measurements with the runs they come from, and return how many runs and measurements were new."""
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


JOURNAL = ".jsonl"


def import_journal(connection: Any, path: Path) -> dict[str, int]:
    """Write the run a journal tells of, unless it is there already; return how many rows were new, by table.

    It is there when a run began at the same time with the same command: a run that wrote to the database itself does
    not know the key that its journal makes.

    Raises:
        ConfigError: It cannot be read, or has lost its first line.
    """
    key, record = record_of_journal(path)
    same = connection.execute(
        "SELECT 1 FROM test_runs WHERE run_key = ? OR (started_at = ? AND command_line = ?)",
        [key, utc(record.started_at), record.command_line],
    ).fetchone()
    if same is None:
        write(connection, record, run_key=key)
    return {"test_runs": int(same is None), "performance_results": 0 if same else len(record.measurements)}


def record_of_journal(path: Path) -> tuple[str, RunRecord]:
    """Return the key and the record of the run a journal tells of.

    Raises:
        ConfigError: It cannot be read, or has lost its first line.
    """
    from pytest_hfaccel.history.recording import with_family

    contents = read_journal(path)
    run = contents.header.get("run", {})
    if "started" not in run:
        raise ConfigError(
            f"{path}: the first line of this journal, which describes the run, is missing or damaged",
            hint="Name the `journal.jsonl` of a run, as docs/reports.md describes it.",
        )
    bad = any(result.status.is_bad for result in contents.results)
    record = RunRecord(
        test_name="pytest",
        test_type="integration",
        started_at=run["started"],
        completed_at=_end(path),
        success=contents.is_complete and not bad,
        git_commit=contents.header.get("commit") or "",
        command_line=run.get("command", ""),
        versions=contents.header.get("versions", {}),
        machine=contents.header.get("machine", {}),
        measurements=[with_family(one) for one in measurements_in([each.to_json() for each in contents.results])],
        cells=contents.results,
    )
    return _journal_key(contents.header), record


def _journal_key(header: Mapping[str, Any]) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(header, sort_keys=True)))


def _end(path: Path) -> datetime | str:
    """When the run ended; of a run that was killed, when it wrote its last line."""
    try:
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        return str(last["finished"])
    except (ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
