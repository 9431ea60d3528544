"""Rows of another database into this one, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_hfaccel.benchmark.store.rows import insert
from pytest_hfaccel.benchmark.store.tables import TABLES, Table

Row = dict[str, Any]


class Merge:
    """Takes the rows of another database over; inside one transaction.

    Numbers are given anew. A run that is here already, by its key, is left as it is, with all that belongs to it, so
    that taking the same database over twice changes nothing.

    Args:
        connection: An open DuckDB connection, in a transaction.
        rows_of: Returns the rows of a table of the other database, as dictionaries.
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
        same = {row[table.number]: known.get(_key(row, table)) for row in rows}
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


def _key(row: Mapping[str, Any], table: Table) -> tuple[Any, ...]:
    return tuple(row[column] for column in table.key)


def rows_of_relation(connection: Any, relation: str) -> list[Row]:
    """Return the rows of a table, a view or a file that DuckDB can read, as dictionaries."""
    found = connection.execute(f"SELECT * FROM {relation}")  # noqa: S608 - our own names and quoted files
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
