"""From an older schema to the current one, in place and in one transaction.

Every table is made anew and filled from the old one: DuckDB cannot add keys to a table, nor alter one that others
refer to. A migration that fails, or is killed, leaves the old database.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.packages import duckdb
from pytest_hfaccel.benchmark.store.schema import columns_of, create_schema, tables_of
from pytest_hfaccel.benchmark.store.tables import TABLES, VIEWS
from pytest_hfaccel.errors import ConfigError

KEPT = "before_migration_"
"""Prefix of the copy of an old table that has columns the new one has not."""


def migrate(connection: Any, path: Path) -> None:
    """Bring a database of an older version to the current one; inside a transaction.

    All rows keep their numbers. A table with columns that the schema does not know is kept as a whole under another
    name as well: nothing of it is lost.

    Args:
        connection: An open DuckDB connection, in a transaction.
        path: The file, for messages.

    Raises:
        ConfigError: The old rows contradict each other, e.g. a result without its run.
    """
    old = [table for table in TABLES if table in tables_of(connection)]
    for table in old:
        connection.execute(f"CREATE TEMP TABLE old_{table} AS FROM {table}")
    _drop(connection, old)
    first_ids = {table: _first_id(connection, table) for table in old}
    create_schema(connection, first_ids=first_ids)
    for table in old:
        try:
            _copy(connection, table)
        except (duckdb().ConstraintException, duckdb().ConversionException) as error:
            raise ConfigError(
                f"{path}: the database is of an older version and its rows of {table} cannot be taken over: {error}",
                hint="Nothing was changed. Correct or delete those rows, with any DuckDB client, and try again.",
            ) from error


def _drop(connection: Any, old: list[str]) -> None:
    for view in VIEWS:
        connection.execute(f"DROP VIEW IF EXISTS {view}")
    for table in reversed(old):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP TABLE IF EXISTS schema_version")


def _first_id(connection: Any, table: str) -> int:
    """Return the number after the last one."""
    query = f"SELECT coalesce(max({TABLES[table].number}), 0) + 1 FROM old_{table}"  # noqa: S608 - our own names
    return int(connection.execute(query).fetchone()[0])


def _copy(connection: Any, table: str) -> None:
    old, new = columns_of(connection, f"temp.old_{table}"), columns_of(connection, table)
    shared = [column for column in old if column in new]
    values = [_as_json(column) if new[column] == "JSON" else column for column in shared]
    connection.execute(f"INSERT INTO {table} ({', '.join(shared)}) SELECT {', '.join(values)} FROM old_{table}")  # noqa: S608
    if set(old) - set(new):
        connection.execute(f"CREATE TABLE {KEPT}{table} AS FROM old_{table}")
    connection.execute(f"DROP TABLE temp.old_{table}")


def _as_json(column: str) -> str:
    """What older versions kept as text need not be JSON; then it becomes a JSON text."""
    text = f"{column}::VARCHAR"
    return f"CASE WHEN {column} IS NULL OR json_valid({text}) THEN {text} ELSE to_json({text}) END"
