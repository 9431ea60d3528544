"""The benchmark database: every run's measurements and results, in one DuckDB file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.history import exchange
from pytest_hfaccel.history.connection import WAIT_S, connected, imported, transaction
from pytest_hfaccel.history.recording import RunRecord, measurements_in
from pytest_hfaccel.history.rows import (
    COLUMNS,
    as_json,
    calibration_row,
    insert,
    measurement_of,
    prediction_row,
    read_runs,
    utc,
    write,
)
from pytest_hfaccel.history.schema import ORDERS, VIEWS, create_schema, default_database_path, prepare
from pytest_hfaccel.reporting.journal import has_checksums, read_line

if TYPE_CHECKING:
    from pytest_hfaccel.core.prediction import Prediction


_CELL_COLUMNS = (
    *("cell", "model", "architecture", "device", "device_name", "dtype", "weights", "implementation"),
    *("placement", "run_id", "started", "checks"),
)
_CELLS = """
SELECT
    c.cell, m.model_name, m.architecture, h.device, h.device_name, c.precision, c.weights, c.implementation,
    c.metadata->'placement', c.run_id, t.started_at,
    (
        SELECT list({'name': i.test_name, 'status': i.status, 'stage': i.stage, 'message': i.error_message}
                    ORDER BY i.test_result_id)
        FROM integration_test_results i
        WHERE (i.run_id, i.model_id, i.hardware_id) = (c.run_id, c.model_id, c.hardware_id) AND i.cell = c.cell
    )
FROM hardware_compatibility c
JOIN models m ON m.model_id = c.model_id
JOIN hardware_platforms h ON h.hardware_id = c.hardware_id
JOIN test_runs t ON t.run_id = c.run_id
WHERE h.device IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY m.model_name, h.device, c.precision, c.weights ORDER BY t.started_at DESC, c.compatibility_id DESC
) = 1
ORDER BY t.started_at, c.compatibility_id
"""


@dataclass(frozen=True)
class StoredModel:
    """A trained prediction model as the database keeps it.

    Attributes:
        name: Its name.
        trained_at: When, in UTC.
        rows: Measured rows it was trained on.
        metrics: Plain JSON: how good it is.
        payload: The model in its own format. The database never unpickles it; whoever does must trust the file.
        versions: Versions of the packages it was written with.
    """

    name: str
    trained_at: datetime
    rows: int
    metrics: dict[str, Any]
    payload: bytes
    versions: dict[str, Any] = field(default_factory=dict)


class BenchmarkDatabase:
    """A benchmark database. No connection is kept: each call opens the file, so that several processes can use it.

    A file that is missing is made, one of an older version is brought to the current one.

    Args:
        path: The file; `BENCHMARK_DB_PATH` or `hfaccel.duckdb` where it is not given.
        create: Whether to make a missing file; an error if not.
        wait_s: How long to wait, in seconds, while another process has the file open.

    Raises:
        ConfigError: The file is missing, locked, damaged, full, not ours or newer than this package; so do all
            methods. The message names the file, the problem and the next step. No file is ever deleted.
    """

    def __init__(self, path: Path | str | None = None, *, create: bool = True, wait_s: float = WAIT_S) -> None:
        self.path = default_database_path() if path is None else Path(path)
        self._wait_s = wait_s
        self._read = partial(connected, self.path, write=False, wait_s=wait_s)
        self._write = partial(transaction, self.path, wait_s=wait_s)
        prepare(self.path, create=create, wait_s=wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is held open."""

    def write_run(self, record: RunRecord) -> int:
        """Write a run and all it found, or nothing of it.

        Returns:
            Its `run_id`.
        """
        with self._write() as connection:
            return write(connection, record)

    def measurements(
        self,
        *,
        model: str | None = None,
        architecture: str | None = None,
        device: str | None = None,
        device_kind: str | None = None,
        device_name: str | None = None,
        dtype: str | None = None,
        weights: str | None = None,
        mode: str | None = None,
        only_real_dimensions: bool = False,
    ) -> list[Measurement]:
        """Return the measurements that fit all filters given, in the order in which they were written.

        Args:
            model: Registry name, hub id or directory.
            architecture: transformers class.
            device: Device id.
            device_kind: Kind of device.
            device_name: The chip.
            dtype: The asked precision.
            weights: `pretrained`, `random` or `tiny`.
            mode: `inference` or `training`.
            only_real_dimensions: Leave out what was measured with tiny weights.
        """
        filters = {
            "model": model,
            "architecture": architecture,
            "device": device,
            "device_kind": device_kind,
            "device_name": device_name,
            "dtype": dtype,
            "weights": weights,
            "mode": mode,
        }
        with self._read() as connection:
            return _select_measurements(connection, filters, only_real_dimensions=only_real_dimensions)

    def cells(self) -> list[dict[str, Any]]:
        """Return the newest record of each model, device, precision and weights, as plain JSON, the oldest first.

        Returns:
            `cell`, `model`, `architecture`, `device`, `device_name`, `dtype`, `weights`, `implementation`, `placement`
            (what the runtime reported), `run_id`, `started` (ISO 8601, UTC), and `checks`: `name`, `status`, `stage`,
            `message`.
        """
        with self._read() as connection:
            rows = connection.execute(_CELLS).fetchall()
        cells = [dict(zip(_CELL_COLUMNS, row, strict=True)) for row in rows]
        return [
            {
                **cell,
                "started": cell["started"].replace(tzinfo=UTC).isoformat(timespec="seconds"),
                "placement": json.loads(cell["placement"] or "null") or {},
                "checks": cell["checks"] or [],
            }
            for cell in cells
        ]

    def recent_runs(self, count: int, *, before: str = "") -> list[RunRecord]:
        """Return the newest runs with their cells and measurements, the oldest first.

        What the tables do not have of a cell (timings by stage, what decided its outcome) is left out.

        Args:
            count: How many at most.
            before: Only runs that began before this time (ISO 8601); all when empty.
        """
        with self._read() as connection:
            return read_runs(connection, count, utc(before) if before else None)

    def frame(self, name: str) -> Any:
        """Return a table or a view as a pandas frame.

        Args:
            name: Its name, e.g. `latest_performance_metrics`.
        """
        orders = {**ORDERS, **VIEWS}
        if name not in orders:
            raise ConfigError(
                f"{name!r} is no table or view of the benchmark database. Allowed: {', '.join(orders)}.",
                hint="For anything else, write a query: BenchmarkDatabase.sql('SELECT ...').",
            )
        return self.sql(f"SELECT * FROM {name} ORDER BY {orders[name]}")  # noqa: S608 - one of our names

    def sql(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Return the answer to a query as a pandas frame; the query can read this database and nothing else.

        Args:
            query: SQL with `?` or `$name` for the parameters.
            parameters: Their values.
        """
        imported("pandas")
        with self._read() as connection:
            connection.execute("SET enable_external_access = false")
            return connection.execute(query, parameters or None).df()

    def save_calibration(self, calibration: Any) -> int:
        """Keep a calibration taken outside a run, or its plain-JSON form, and return its number."""
        with self._write() as connection:
            return insert(connection, "device_calibrations", [calibration_row(calibration)])[0]

    def calibrations(
        self,
        *,
        device: str | None = None,
        device_name: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the plain-JSON forms of the calibrations that fit all filters given, the newest first.

        Args:
            device: Device id.
            device_name: The chip.
            dtype: The precision.
            threads: CPU threads of the runtime.
        """
        filters = {"device": device, "device_name": device_name, "dtype": dtype, "threads": threads}
        conditions, values = _where(filters)
        query = (
            f"SELECT payload FROM device_calibrations WHERE {conditions} ORDER BY taken_at DESC, calibration_id DESC"  # noqa: S608
        )
        with self._read() as connection:
            return [json.loads(payload) for (payload,) in connection.execute(query, values).fetchall()]

    def save_predictions(
        self,
        predictions: Iterable[Prediction],
        *,
        device_name: str = "",
        threads: int | None = None,
        git_commit: str = "",
        created_at: datetime | str | None = None,
    ) -> list[int]:
        """Keep predictions, to hold them against what is measured later, and return their numbers.

        Args:
            predictions: What was predicted.
            device_name: The chip they are for; what a prediction's `details` say under this name goes first. Without
                one, a prediction is held against every chip of its kind.
            threads: CPU threads they are for, likewise.
            git_commit: Commit of the code that predicted.
            created_at: When; now where it is not given.
        """
        created = utc(created_at or datetime.now(UTC))
        rows = [
            {
                "created_at": created,
                "git_commit": git_commit,
                "device_name": str(each.details.get("device_name", device_name)),
                "threads": each.details.get("threads", threads),
                **prediction_row(each),
            }
            for each in predictions
        ]
        with self._write() as connection:
            return insert(connection, "predictions", rows)

    def accuracy(self) -> Any:
        """Return predicted beside measured values as a pandas frame: the view `prediction_accuracy`."""
        return self.frame("prediction_accuracy")

    def save_prediction_model(
        self,
        name: str,
        payload: bytes,
        *,
        rows: int,
        metrics: Mapping[str, Any],
        versions: Mapping[str, Any] | None = None,
        trained_at: datetime | str | None = None,
    ) -> int:
        """Keep a trained prediction model beside the earlier ones of its name, and return its number.

        Args:
            name: Its name.
            payload: The model in its own format.
            rows: Measured rows it was trained on.
            metrics: Plain JSON: how good it is.
            versions: Versions of the packages that wrote it.
            trained_at: When; now where it is not given.
        """
        row = {
            "name": name,
            "trained_at": utc(trained_at or datetime.now(UTC)),
            "rows": rows,
            "metrics": as_json(metrics),
            "versions": as_json(versions or {}),
            "payload": payload,
        }
        with self._write() as connection:
            return insert(connection, "prediction_models", [row])[0]

    def load_prediction_model(self, name: str) -> StoredModel | None:
        """Return the newest prediction model of a name; `None` when there is none."""
        query = (
            "SELECT name, trained_at, rows, metrics, payload, versions FROM prediction_models WHERE name = ? "
            "ORDER BY trained_at DESC, prediction_model_id DESC LIMIT 1"
        )
        with self._read() as connection:
            row = connection.execute(query, [name]).fetchone()
        if row is None:
            return None
        name, trained_at, rows, metrics, payload, versions = row
        return StoredModel(name, trained_at, rows, json.loads(metrics), bytes(payload), json.loads(versions))

    def export_parquet(self, target: Path | str) -> list[Path]:
        """Write the database to Parquet files and return them.

        Args:
            target: A file `*.parquet`, for all measurements with the runs they come from; or a directory, which gets
                a file per table.
        """
        with self._read() as connection:
            return exchange.export(connection, Path(target))

    def import_parquet(self, source: Path | str) -> dict[str, int]:
        """Take over what `export_parquet` wrote, also on another machine, and return how many rows were new, by table.

        A run that is here already is left as it is.

        Args:
            source: The file, or the directory.
        """
        with self._write() as connection:
            return exchange.import_files(connection, Path(source))

    def import_journal(self, journal: Path | str) -> dict[str, int]:
        """Take over the run that a `journal.jsonl` tells of, and return how many rows were new, by table.

        For runs that could not write to the database. A run that is here already is left as it is.

        Args:
            journal: The journal, also that of a run that was killed.
        """
        with self._write() as connection:
            return exchange.import_journal(connection, Path(journal))

    def import_frame(self, frame: Any) -> int:
        """Take over measurements from a pandas frame with the columns of `measured_rows`; return how many were new."""
        with self._write() as connection:
            return exchange.import_frame(connection, frame)[1]

    def merge(self, other: Path | str) -> dict[str, int]:
        """Take over all of another database, and return how many rows were new, by table.

        Args:
            other: Its file; it is only read.
        """
        return exchange.import_database(Path(other), self._write, wait_s=self._wait_s)


def _where(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The condition that columns have these values (`None`: any), and its parameters."""
    asked = {column: value for column, value in filters.items() if value is not None}
    return " AND ".join(["true", *(f"{column} = ?" for column in asked)]), list(asked.values())


def _select_measurements(
    connection: Any, filters: Mapping[str, Any], *, only_real_dimensions: bool = False
) -> list[Measurement]:
    conditions, values = _where(filters)
    if only_real_dimensions:
        conditions += f" AND weights <> '{Weights.TINY}'"
    query = f"SELECT {', '.join(COLUMNS)} FROM measured_rows WHERE {conditions} ORDER BY run_id, result_id"  # noqa: S608
    return [
        measurement_of(dict(zip(COLUMNS, row, strict=True))) for row in connection.execute(query, values).fetchall()
    ]


def open_measurements(path: Path | str) -> list[Measurement]:
    """Return the measurements kept at a place, each once.

    Args:
        path: A database (`.duckdb`), a Parquet file that `export_parquet` wrote, a report or journal of a run (`.json`,
            `.jsonl`), or a directory of any of these; sub-directories count.

    Raises:
        ConfigError: There is no such place, or a file cannot be read as what its name says.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigError(
            f"{place}: there is no such file or directory",
            hint="Name a benchmark database (.duckdb), a file .parquet or a directory of them or of reports.",
        )
    found: dict[str, Measurement] = {}
    for measured in _measurements(place):
        found.setdefault(json.dumps(measured.to_json(), sort_keys=True, default=str), measured)
    return list(found.values())


def _measurements(place: Path) -> Iterator[Measurement]:
    if place.is_dir():
        has_all_tables = exchange.has_all_tables(place)
        if has_all_tables:
            yield from _of_tables(place)
        for child in sorted(place.iterdir()):
            is_table = has_all_tables and child.suffix == exchange.PARQUET
            if not child.name.startswith(".") and (child.is_dir() or (child.suffix in _READERS and not is_table)):
                yield from _measurements(child)
    elif place.suffix in _READERS:
        yield from _READERS[place.suffix](place)
    else:
        raise ConfigError(
            f"{place}: {place.suffix or 'a file without an ending'} is not a file with measurements. "
            f"Allowed: {', '.join(_READERS)}."
        )


def _of_database(path: Path) -> Iterator[Measurement]:
    yield from BenchmarkDatabase(path, create=False).measurements()


def _of_parquet(path: Path) -> Iterator[Measurement]:
    with imported("duckdb").connect() as connection:
        rows = exchange.measured_rows(connection, path)
    yield from map(measurement_of, rows)


def _of_tables(directory: Path) -> Iterator[Measurement]:
    with imported("duckdb").connect() as connection:
        create_schema(connection)
        exchange.import_tables(connection, directory)
        yield from _select_measurements(connection, {})


def _of_report(path: Path) -> Iterator[Measurement]:
    is_journal = path.suffix == ".jsonl"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: this report cannot be read: {error}") from error
    parts = content.splitlines() if is_journal else [content]
    checked = is_journal and has_checksums(parts)
    for number, part in enumerate(parts, 1):
        try:
            yield from measurements_in(read_line(part, checked))
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error.message}", hint=error.hint) from error
        except ValueError as error:
            if is_journal and number == len(parts):
                return  # a killed run may leave its last line torn
            raise ConfigError(f"{path}:{number}: this cannot be read: {error}", hint="Move the file away.") from error
        except RecursionError as error:
            raise ConfigError(f"{path}:{number}: this is nested too deeply.", hint="Move the file away.") from error


_READERS = {
    ".duckdb": _of_database,
    ".db": _of_database,
    exchange.PARQUET: _of_parquet,
    ".json": _of_report,
    ".jsonl": _of_report,
}
