"""Making the file, and looking at one that is there."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from pytest_hfaccel.benchmark.store.connection import connected, transaction
from pytest_hfaccel.benchmark.store.migration import migrate
from pytest_hfaccel.benchmark.store.packages import duckdb
from pytest_hfaccel.benchmark.store.problems import explained
from pytest_hfaccel.benchmark.store.schema import SCHEMA_VERSION, ForeignDatabase, create_schema, schema_version
from pytest_hfaccel.errors import ConfigError


def prepare(path: Path, *, create: bool, wait_s: float) -> None:
    """See to it that the file is there and has the current schema.

    Args:
        path: The file.
        create: Whether to make one that is missing.
        wait_s: How long to wait, in seconds, while another process has it open.

    Raises:
        ConfigError: It is missing and not to be made, is none of ours, is newer than this package, or any of what
            `connected` raises.
    """
    with explained(path):
        there = path.exists()
    if not there:
        if not create:
            raise missing(path)
        _create(path)
    version = version_of(path, wait_s=wait_s)
    if version < SCHEMA_VERSION:
        with transaction(path, wait_s=wait_s) as connection:
            # Meanwhile another process may have done it.
            if schema_version(connection) < SCHEMA_VERSION:
                migrate(connection, path)


def missing(path: Path) -> ConfigError:
    """Return the error for a database that is not there."""
    return ConfigError(
        f"{path}: there is no benchmark database",
        hint="Measure something first (`hfaccel bench`), or name another file with BENCHMARK_DB_PATH.",
    )


def version_of(path: Path, *, wait_s: float) -> int:
    """Return the schema version of a file that is there.

    Raises:
        ConfigError: It is none of ours, or newer than this package.
    """
    try:
        with connected(path, write=False, wait_s=wait_s) as connection:
            version = schema_version(connection)
    except ForeignDatabase as error:
        raise ConfigError(
            f"{path}: this DuckDB database is not one of pytest-hfaccel: {error}",
            hint="Nothing was changed. Name another file with BENCHMARK_DB_PATH.",
        ) from error
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: the database has schema version {version}; this pytest-hfaccel knows versions 1 to "
            f"{SCHEMA_VERSION}",
            hint="Nothing was changed. Update pytest-hfaccel, or name another file with BENCHMARK_DB_PATH.",
        )
    return version


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
            with duckdb().connect(str(draft.absolute())) as connection:
                connection.execute("BEGIN")
                create_schema(connection)
                connection.execute("COMMIT")
            _put(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _put(draft: Path, path: Path) -> None:
    """Give the draft its name, unless another process was first."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.rename(path)
