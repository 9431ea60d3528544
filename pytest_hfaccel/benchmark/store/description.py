"""What a database holds, without changing it: also one of an older version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.connection import WAIT_S, connected
from pytest_hfaccel.benchmark.store.creation import missing, version_of
from pytest_hfaccel.benchmark.store.schema import SCHEMA_VERSION, tables_of
from pytest_hfaccel.benchmark.store.tables import TABLES


def describe(path: Path, *, wait_s: float = WAIT_S) -> dict[str, Any]:
    """Return what a database holds, as plain JSON.

    Args:
        path: The file.
        wait_s: How long to wait, in seconds, while another process has it open.

    Returns:
        `path`, `bytes`, `schema_version`, `current_version`, `rows` by table, `devices` (kind and chip of each) and
        `last_run` (its time in UTC, as text; `None` without a run).

    Raises:
        ConfigError: The file is missing, locked, damaged, or not ours.
    """
    if not path.exists():
        raise missing(path)
    version = version_of(path, wait_s=wait_s)
    with connected(path, write=False, wait_s=wait_s) as connection:
        present = [table for table in TABLES if table in tables_of(connection)]
        rows = {table: _one(connection, f"SELECT count(*) FROM {table}") for table in present}  # noqa: S608 - ours
        devices = "SELECT DISTINCT hardware_type, coalesce(device_name, '') FROM hardware_platforms ORDER BY ALL"
        found = connection.execute(devices).fetchall() if "hardware_platforms" in present else []
        last = _one(connection, "SELECT max(started_at) FROM test_runs") if "test_runs" in present else None
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "schema_version": version,
        "current_version": SCHEMA_VERSION,
        "rows": rows,
        "devices": [{"kind": kind, "name": name} for kind, name in found],
        "last_run": last.isoformat(timespec="seconds") if last else None,
    }


def _one(connection: Any, query: str) -> Any:
    return connection.execute(query).fetchone()[0]
