"""The database as Parquet files: all tables into a directory, or the measurements into one file."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.parquet import SUFFIX, quoted
from pytest_hfaccel.benchmark.store.problems import explained
from pytest_hfaccel.benchmark.store.tables import TABLES, VIEWS

VERSION_FILE = f"schema_version{SUFFIX}"


def export(connection: Any, target: Path) -> list[Path]:
    """Write the database to Parquet files, each as a whole, and return them.

    Args:
        connection: An open DuckDB connection.
        target: A file `*.parquet`, for all measurements with the runs they come from; or a directory, which gets a
            file per table.

    Raises:
        ConfigError: A file cannot be written; the old one, if there was one, still stands.
    """
    if target.suffix == SUFFIX and not target.is_dir():
        return [_copy(connection, f"(FROM measured_rows ORDER BY {VIEWS['measured_rows']})", target)]
    names = {name: table.number for name, table in TABLES.items()} | {"schema_version": "version"}
    return [
        _copy(connection, f"(FROM {name} ORDER BY {number})", target / f"{name}{SUFFIX}")
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
