"""The schema of the database: its version, its tables, how it is made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from pytest_hfaccel import __version__
from pytest_hfaccel.benchmark.store.tables import TABLES

SCHEMA_VERSION = 2
"""Raised when a table or a view changes. Version 1 is the schema of the guides, which had no table `schema_version`."""

_MARKS = {"test_runs", "performance_results"}
"""Tables by which a database without `schema_version` is recognised as one of version 1."""


class ForeignDatabase(ValueError):
    """A DuckDB database that somebody made for something else."""


def create_schema(connection: Any, *, first_ids: Mapping[str, int] | None = None) -> None:
    """Make the tables, sequences and views in a database that has none of them.

    Args:
        connection: An open DuckDB connection.
        first_ids: Where the numbering of a table begins, if not at 1.
    """
    for table in TABLES:
        start = (first_ids or {}).get(table, 1)
        connection.execute(f"CREATE OR REPLACE SEQUENCE {table}_ids START {int(start)}")
    for script in ("schema.sql", "views.sql"):
        connection.execute(files(__package__).joinpath(script).read_text(encoding="utf-8"))
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute("INSERT INTO schema_version VALUES (?, ?, ?)", [SCHEMA_VERSION, now, __version__])


def schema_version(connection: Any) -> int:
    """Return the version of an open database; 0 when it is empty.

    Raises:
        ForeignDatabase: It holds tables, but not ours.
    """
    present = tables_of(connection)
    if "schema_version" in present and present >= _MARKS:
        return int(connection.execute("SELECT max(version) FROM schema_version").fetchone()[0])
    if present >= _MARKS:
        return 1
    if present:
        raise ForeignDatabase(f"it holds {', '.join(sorted(present))}, but not {', '.join(sorted(_MARKS - present))}")
    return 0


def tables_of(connection: Any) -> set[str]:
    """Return the names of the tables of an open database."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'main' "
        "AND NOT temporary"
    )
    return {name for (name,) in found.fetchall()}


def columns_of(connection: Any, table: str) -> dict[str, str]:
    """Return the columns of a table of an open database, with their types."""
    # Ten times as fast as a query to duckdb_columns().
    return dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", [table]).fetchall())
