"""The journal of a run as a record: what a run could not write to its database is taken over later."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.found import measurements_in
from pytest_hfaccel.benchmark.store.records import RunRecord, utc
from pytest_hfaccel.benchmark.store.writing import write
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports import read_journal

SUFFIX = ".jsonl"


def import_journal(connection: Any, path: Path) -> dict[str, int]:
    """Write the run a journal tells of, unless it is there already; return how many rows were new, by table.

    It is there when a run began at the same time with the same command: a run that wrote to the database itself does
    not know the key that its journal makes.

    Args:
        connection: An open DuckDB connection, in a transaction.
        path: The journal, also that of a run that was killed.

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
    from pytest_hfaccel.benchmark.recording import with_family

    contents = read_journal(path)
    run = contents.header.get("run", {})
    if "started" not in run:
        raise ConfigError(
            f"{path}: the first line of this journal, which tells of the run, is missing or damaged",
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
    return _key(contents.header), record


def _key(header: Mapping[str, Any]) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(header, sort_keys=True)))


def _end(path: Path) -> datetime | str:
    """When the run ended; of a run that was killed, when it wrote its last line."""
    try:
        last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        return str(last["finished"])
    except (ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
