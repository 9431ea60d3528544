"""Models and devices: one row for each, found again by what they are.

Rows that others refer to are never replaced: DuckDB carries out some updates as a deletion and an insertion, which the
foreign keys forbid. Only plain columns that were empty are filled in later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_hfaccel.benchmark.store.machines import device_row
from pytest_hfaccel.benchmark.store.records import RunRecord
from pytest_hfaccel.benchmark.store.rows import insert
from pytest_hfaccel.benchmark.store.tables import TABLES
from pytest_hfaccel.spec import Weights
from pytest_hfaccel.tasks import TASKS

CLASS_LEVEL = "class"
"""The `device` of a cell whose checks need none."""

_LEARNED = ("model_family", "modality", "parameters_million")
"""Columns of a model that a later run may know when an earlier one did not."""
_MODALITIES = {
    "text": "text",
    "seq2seq": "text",
    "image": "vision",
    "image-points": "vision",
    "speech": "audio",
}
"""By what a task's inputs are made of; those of more than one kind are `multimodal`."""

Key = tuple[Any, ...]


class Subjects:
    """The rows of the models and devices of one run, made where they are missing; inside one transaction.

    Args:
        connection: An open DuckDB connection, in a transaction.
        record: The run.
    """

    def __init__(self, connection: Any, record: RunRecord) -> None:
        self._names = {one.device: one.device_name for one in record.measurements}
        named = {(one.device, one.device_name) for one in record.measurements}
        named |= {self._named(cell.device) for cell in record.cells if cell.device != CLASS_LEVEL}
        devices = {one: device_row(*one, record.machine) for one in sorted(named)}
        numbers = _found_or_made(connection, "hardware_platforms", devices.values())
        self._devices = {one: numbers[_key("hardware_platforms", row)] for one, row in devices.items()}
        self._models = _found_or_made(connection, "models", _model_rows(record))

    def model(self, name: str, architecture: str) -> int:
        """Return the `model_id` of a model of the run."""
        return self._models[name, architecture]

    def device(self, device: str, name: str) -> int:
        """Return the `hardware_id` of a device that was measured, by its id and chip."""
        return self._devices[device, name]

    def device_of_cell(self, device: str) -> int | None:
        """Return the `hardware_id` of a cell's device; `None` for a cell whose checks need none."""
        return None if device == CLASS_LEVEL else self._devices[self._named(device)]

    def _named(self, device: str) -> tuple[str, str]:
        return device, self._names.get(device, "")


def _model_rows(record: RunRecord) -> list[dict[str, Any]]:
    rows: dict[Key, dict[str, Any]] = {}
    for name, architecture, task, family, parameters in _mentions(record):
        empty: dict[str, Any] = {"model_name": name, "architecture": architecture, **dict.fromkeys(_LEARNED)}
        row = rows.setdefault((name, architecture), empty)
        said = (family or None, _modality(task), parameters / 1e6 if parameters else None)
        row.update({column: row[column] or value for column, value in zip(_LEARNED, said, strict=True)})
    return list(rows.values())


def _mentions(record: RunRecord) -> Iterator[tuple[str, str, str, str, int | None]]:
    for one in record.measurements:
        # Tiny weights say nothing about the size of the model that bears the name.
        yield one.model, one.architecture, one.task, one.family, None if one.weights == Weights.TINY else one.parameters
    for cell in record.cells:
        yield cell.model, cell.architecture, cell.task, "", None


def _modality(task: str) -> str | None:
    return _MODALITIES.get(TASKS[task].recipe, "multimodal") if task in TASKS else None


def _found_or_made(connection: Any, table: str, rows: Iterable[dict[str, Any]]) -> dict[Key, int]:
    """Return the numbers of rows by their keys, of those that were there already and of those made now."""
    wanted = {_key(table, row): row for row in rows}
    learned = _LEARNED if table == "models" else ()
    columns = (TABLES[table].number, *TABLES[table].key, *learned)
    found = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1 DESC").fetchall()  # noqa: S608
    here = {tuple(row[1 : 1 + len(TABLES[table].key)]): dict(zip(columns, row, strict=True)) for row in found}
    for key in wanted.keys() & here.keys():
        _fill_in(connection, here[key], {column: wanted[key][column] for column in learned})
    missing = wanted.keys() - here.keys()
    ordered = [key for key in wanted if key in missing]
    made = dict(zip(ordered, insert(connection, table, [wanted[key] for key in ordered]), strict=True))
    return {key: made[key] if key in made else here[key][TABLES[table].number] for key in wanted}


def _fill_in(connection: Any, known: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    for column, value in said.items():
        if value is not None and known[column] in (None, ""):
            query = f"UPDATE models SET {column} = ? WHERE model_id = ?"  # noqa: S608 - our own names
            connection.execute(query, [value, known["model_id"]])


def _key(table: str, row: Mapping[str, Any]) -> Key:
    return tuple(row[column] for column in TABLES[table].key)
