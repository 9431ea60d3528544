"""Many rows into a table at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_hfaccel.benchmark.store.schema import columns_of
from pytest_hfaccel.benchmark.store.tables import TABLES
from pytest_hfaccel.reports.plain import to_plain


def insert(connection: Any, table: str, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows, all with the same columns, and return their numbers.

    One statement with a list per column: a statement per row takes a millisecond each.
    """
    if not rows:
        return []
    types = columns_of(connection, table)
    names = list(rows[0])
    numbers = _next_ids(connection, table, len(rows))
    columns = [TABLES[table].number, *names]
    values = ", ".join(f"unnest(?::{types[name]}[])" for name in columns)
    lists = [numbers, *([row[name] for row in rows] for name in names)]
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}", lists)
    return numbers


def as_json(value: Any) -> str:
    """Return a value as the text of a JSON column: strict JSON, without secrets."""
    return json.dumps(to_plain(value), allow_nan=False)


def _next_ids(connection: Any, table: str, count: int) -> list[int]:
    found = connection.execute(f"SELECT nextval('{table}_ids') FROM range(?)", [count])  # noqa: S608 - our names
    return [number for (number,) in found.fetchall()]
