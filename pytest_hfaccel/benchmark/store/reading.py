"""Rows out of the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.store.packages import pandas
from pytest_hfaccel.benchmark.store.performance import COLUMNS, measurement_of
from pytest_hfaccel.benchmark.store.tables import TABLES, VIEWS
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.spec import Weights

NAMES = ("schema_version", *TABLES, *VIEWS)


def read_measurements(
    connection: Any, filters: Mapping[str, Any], *, only_real_dimensions: bool, relation: str = "measured_rows"
) -> list[Measurement]:
    """Return the measurements that fit, in the order in which they were written.

    Args:
        connection: An open DuckDB connection.
        filters: Columns of `measured_rows` and the value asked for; `None` asks for nothing.
        only_real_dimensions: Whether to leave out what was measured with tiny weights.
        relation: What to read: the view, or a Parquet file with its columns.
    """
    asked = {column: value for column, value in filters.items() if value is not None}
    conditions = ["true", *(f"{column} = ?" for column in asked)]
    if only_real_dimensions:
        conditions.append(f"weights <> '{Weights.TINY}'")
    query = f"SELECT {', '.join(COLUMNS)} FROM {relation} WHERE {' AND '.join(conditions)} ORDER BY run_id, result_id"  # noqa: S608
    found = connection.execute(query, list(asked.values())).fetchall()
    return [measurement_of(dict(zip(COLUMNS, row, strict=True))) for row in found]


def read_frame(connection: Any, name: str) -> Any:
    """Return a table or a view as a pandas frame, in the order of its rows' numbers.

    Raises:
        ConfigError: There is no such table or view.
    """
    if name not in NAMES:
        raise ConfigError(
            f"{name!r} is no table or view of the benchmark database. Allowed: {', '.join(NAMES)}.",
            hint="For anything else, write a query: BenchmarkDatabase.sql('SELECT ...').",
        )
    order = VIEWS.get(name) or (TABLES[name].number if name in TABLES else "version")
    return query_frame(connection, f"SELECT * FROM {name} ORDER BY {order}")  # noqa: S608 - one of our names


def query_frame(connection: Any, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """Return the answer to a query as a pandas frame."""
    pandas()
    return connection.execute(query, parameters or None).df()
