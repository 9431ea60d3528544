"""All rows of another database, which is only read."""

from __future__ import annotations

from pathlib import Path

from pytest_hfaccel.benchmark.store.connection import connected
from pytest_hfaccel.benchmark.store.creation import version_of
from pytest_hfaccel.benchmark.store.merging import Row, rows_of_relation
from pytest_hfaccel.benchmark.store.schema import SCHEMA_VERSION
from pytest_hfaccel.benchmark.store.tables import TABLES
from pytest_hfaccel.errors import ConfigError


def rows_of_database(path: Path, *, wait_s: float) -> dict[str, list[Row]]:
    """Return the rows of every table.

    They are read before anything is written: two processes that take each other's database over do not lock each
    other out.

    Args:
        path: The file.
        wait_s: How long to wait, in seconds, while another process has it open.

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
