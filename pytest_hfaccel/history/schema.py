"""The schema of the database: tables, version, creation, description and migration."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from pytest_hfaccel import __version__
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history.connection import WAIT_S, connected, explained, imported, transaction


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        number: The column that numbers its rows; numbers mean nothing outside their database.
        key: Columns that are the same for the same thing in every database; empty where a row belongs to its parent.
        refers: Column -> the table it refers to.
        shared: Whether rows of several runs refer to one row of it.
    """

    number: str
    key: tuple[str, ...] = ()
    refers: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False


HARDWARE_KEY = (
    "hardware_type",
    "device",
    "device_name",
    "platform",
    "platform_version",
    "driver_version",
    "memory_gb",
    "compute_units",
)
"""A new driver or system makes another device, because it measures otherwise."""

_RUN = {"run_id": "test_runs"}
_RESULT = {**_RUN, "model_id": "models", "hardware_id": "hardware_platforms"}

TABLES: Mapping[str, Table] = {
    "hardware_platforms": Table("hardware_id", HARDWARE_KEY, shared=True),
    "models": Table("model_id", ("model_name", "architecture"), shared=True),
    "test_runs": Table("run_id", ("run_key",)),
    "performance_results": Table("result_id", refers=_RESULT),
    "performance_batch_results": Table("batch_result_id", refers={"result_id": "performance_results"}),
    "hardware_compatibility": Table("compatibility_id", refers=_RESULT),
    "integration_test_results": Table("test_result_id", refers=_RESULT),
    "integration_test_assertions": Table("assertion_id", refers={"test_result_id": "integration_test_results"}),
    "device_calibrations": Table("calibration_id", ("device", "device_name", "dtype", "threads", "taken_at"), _RUN),
    "predictions": Table("prediction_id", ("prediction_key",)),
    "prediction_models": Table("prediction_model_id", ("name", "trained_at")),
}
"""All tables but `schema_version`, parents before their children."""

VIEWS: Mapping[str, str] = {
    "measured_rows": "run_id, result_id",
    "latest_performance_metrics": "result_id",
    "model_hardware_compatibility": "model_id, hardware_id, precision, weights",
    "integration_test_status": "test_result_id",
    "prediction_accuracy": "result_id, metric, prediction_id",
}
"""All views, and the order in which their rows are shown."""

ORDERS: Mapping[str, str] = {"schema_version": "version", **{name: each.number for name, each in TABLES.items()}}
"""All tables, and the column by which their rows are shown."""

SCHEMA_VERSION = 2
"""Raised when a table or a view changes. Version 1 is the schema of the guides, which had no table `schema_version`."""

_MARKS = {"test_runs", "performance_results"}
"""Tables by which a database without `schema_version` is recognised as one of version 1."""

_OLD_COPY = "before_migration_"
"""Prefix of the copy of an old table that has columns the new one has not."""


def default_database_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the database: `BENCHMARK_DB_PATH`, or `hfaccel.duckdb` in the working directory."""
    named = (os.environ if environ is None else environ).get("BENCHMARK_DB_PATH", "")
    return Path(named).expanduser() if named else Path("hfaccel.duckdb")


def create_schema(connection: Any, *, first_ids: Mapping[str, int] | None = None) -> None:
    """Make the tables, sequences and views in a database that has none of them.

    `first_ids` says where the numbering of a table begins, if not at 1.
    """
    for table in TABLES:
        start = (first_ids or {}).get(table, 1)
        connection.execute(f"CREATE OR REPLACE SEQUENCE {table}_ids START {int(start)}")
    for script in ("schema.sql", "views.sql"):
        connection.execute(files(__package__).joinpath(script).read_text(encoding="utf-8"))
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute("INSERT INTO schema_version VALUES (?, ?, ?)", [SCHEMA_VERSION, now, __version__])


def columns_of(connection: Any, table: str) -> dict[str, str]:
    """Return the columns of a table of an open database, with their types."""
    # Ten times as fast as a query to duckdb_columns().
    return dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", [table]).fetchall())


def prepare(path: Path, *, create: bool, wait_s: float) -> None:
    """See to it that the file is there and has the current schema.

    Raises:
        ConfigError: It is missing and not to be made, is none of ours, is newer than this package, or any of what
            `connected` raises.
    """
    with explained(path):
        there = path.exists()
    if not there and create:
        _create(path)
    if version_of(path, wait_s=wait_s) < SCHEMA_VERSION:
        with transaction(path, wait_s=wait_s) as connection:
            # Meanwhile another process may have done it.
            if _schema_version(connection, path) < SCHEMA_VERSION:
                _migrate(connection, path)


def version_of(path: Path, *, wait_s: float) -> int:
    """Return the schema version of a file.

    Raises:
        ConfigError: It is missing, none of ours, or newer than this package.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: there is no benchmark database",
            hint="Measure something first (`hfaccel bench`), or name another file with BENCHMARK_DB_PATH.",
        )
    with connected(path, write=False, wait_s=wait_s) as connection:
        return _schema_version(connection, path)


def describe(path: Path, *, wait_s: float = WAIT_S) -> dict[str, Any]:
    """Return what a database holds, as plain JSON.

    Returns:
        `path`, `bytes`, `schema_version`, `current_version`, `rows` by table, `devices` (kind and chip of each) and
        `last_run` (its time in UTC, as text; `None` without a run).

    Raises:
        ConfigError: The file is missing, locked, damaged, or not ours.
    """
    version = version_of(path, wait_s=wait_s)
    with connected(path, write=False, wait_s=wait_s) as connection:

        def ask(query: str) -> list[tuple[Any, ...]]:
            answer: list[tuple[Any, ...]] = connection.execute(query).fetchall()
            return answer

        present = [table for table in TABLES if table in _tables_of(connection)]
        rows = {table: ask(f"SELECT count(*) FROM {table}")[0][0] for table in present}  # noqa: S608 - ours
        devices = "SELECT DISTINCT hardware_type, coalesce(device_name, '') FROM hardware_platforms ORDER BY ALL"
        chips = ask(devices) if "hardware_platforms" in present else []
        last = ask("SELECT max(started_at) FROM test_runs")[0][0] if present else None
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "schema_version": version,
        "current_version": SCHEMA_VERSION,
        "rows": rows,
        "devices": [{"kind": kind, "name": name} for kind, name in chips],
        "last_run": last.isoformat(timespec="seconds") if last else None,
    }


def _schema_version(connection: Any, path: Path) -> int:
    """The version of an open database; 0 when it is empty."""
    present = _tables_of(connection)
    if present and not present >= _MARKS:
        content = f"it holds {', '.join(sorted(present))}, but not {', '.join(sorted(_MARKS - present))}"
        raise ConfigError(
            f"{path}: this DuckDB database is not one of pytest-hfaccel: {content}",
            hint="Nothing was changed. Name another file with BENCHMARK_DB_PATH.",
        )
    if "schema_version" not in present:
        return int(bool(present))
    version = int(connection.execute("SELECT max(version) FROM schema_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: the database has schema version {version}; this pytest-hfaccel knows versions 1 to "
            f"{SCHEMA_VERSION}",
            hint="Nothing was changed. Update pytest-hfaccel, or name another file with BENCHMARK_DB_PATH.",
        )
    return version


def _tables_of(connection: Any) -> set[str]:
    rows = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'main' "
        "AND NOT temporary"
    )
    return {name for (name,) in rows.fetchall()}


def _migrate(connection: Any, path: Path) -> None:
    """Bring a database of an older version to the current one; inside a transaction.

    All rows keep their numbers. A table with columns that the schema does not know is kept as a whole under another
    name as well: nothing of it is lost.

    Raises:
        ConfigError: The old rows contradict each other, e.g. a result without its run.
    """
    duckdb = imported("duckdb")
    present = _tables_of(connection)
    old = [table for table in TABLES if table in present]
    first_ids = {}
    for table in old:
        connection.execute(f"CREATE TEMP TABLE old_{table} AS FROM {table}")
        query = f"SELECT coalesce(max({TABLES[table].number}), 0) + 1 FROM old_{table}"  # noqa: S608 - our own names
        first_ids[table] = connection.execute(query).fetchone()[0]
    for view in VIEWS:
        connection.execute(f"DROP VIEW IF EXISTS {view}")
    for table in (*reversed(old), "schema_version"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    create_schema(connection, first_ids=first_ids)
    for table in old:
        try:
            _copy_old(connection, table)
        except (duckdb.ConstraintException, duckdb.ConversionException) as error:
            raise ConfigError(
                f"{path}: the database is of an older version and its rows of {table} cannot be migrated: {error}",
                hint="Nothing was changed. Correct or delete those rows, with any DuckDB client, and try again.",
            ) from error


def _copy_old(connection: Any, table: str) -> None:
    old, new = columns_of(connection, f"temp.old_{table}"), columns_of(connection, table)
    shared = [column for column in old if column in new]
    values = [_as_json(column) if new[column] == "JSON" else column for column in shared]
    connection.execute(f"INSERT INTO {table} ({', '.join(shared)}) SELECT {', '.join(values)} FROM old_{table}")  # noqa: S608
    if set(old) - set(new):
        connection.execute(f"CREATE TABLE {_OLD_COPY}{table} AS FROM old_{table}")
    connection.execute(f"DROP TABLE temp.old_{table}")


def _as_json(column: str) -> str:
    """What older versions kept as text need not be JSON; then it becomes a JSON text."""
    text = f"{column}::VARCHAR"
    return f"CASE WHEN {column} IS NULL OR json_valid({text}) THEN {text} ELSE to_json({text}) END"


def _create(path: Path) -> None:
    """Make the file beside its place and link it there: nobody ever sees half a database.

    Raises:
        ConfigError: It cannot be made there, or the write-ahead log of a lost database is in its place.
    """
    log = path.with_name(path.name + ".wal")
    # In this order: another process may be making the database, and its log, just now.
    if log.exists() and not path.exists():
        raise ConfigError(
            f"{path}: the database is gone, but its write-ahead log {log.name} is still there",
            hint="The log may hold committed rows that only its own database can take in: bring the database back "
            "beside it, or move the log away.",
        )
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with imported("duckdb").connect(str(draft.absolute())) as connection:
                connection.execute("BEGIN")
                create_schema(connection)
                connection.execute("COMMIT")
            _link(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name, unless another process was first."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.rename(path)
