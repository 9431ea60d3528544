"""The benchmark database: every run's measurements and results, in one DuckDB file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history.connection import WAIT_S, connected, duckdb, transaction
from pytest_hfaccel.history.exchange import (
    PARQUET,
    Merge,
    export,
    import_files,
    import_frame,
    import_journal,
    import_tables,
    is_whole,
    measured_rows,
    rows_of_database,
)
from pytest_hfaccel.history.rows import (
    Calibration,
    RunRecord,
    StoredModel,
    calibration_row,
    insert,
    measurement_of,
    measurements_in,
    model_row,
    prediction_rows,
    query_frame,
    read_calibrations,
    read_frame,
    read_measurements,
    read_model,
    write,
)
from pytest_hfaccel.history.schema import create_schema, default_database_path, prepare

if TYPE_CHECKING:
    from pytest_hfaccel.core.prediction import Prediction


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
        prepare(self.path, create=create, wait_s=wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def write_run(self, record: RunRecord) -> int:
        """Write a run and all it found, or nothing of it.

        Returns:
            Its `run_id`.
        """
        with transaction(self.path, wait_s=self._wait_s) as connection:
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
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            return read_measurements(connection, filters, only_real_dimensions=only_real_dimensions)

    def frame(self, name: str) -> Any:
        """Return a table or a view as a pandas frame.

        Args:
            name: Its name, e.g. `latest_performance_metrics`.
        """
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            return read_frame(connection, name)

    def sql(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """Return the answer to a query as a pandas frame; the query can read this database and nothing else.

        Args:
            query: SQL with `?` or `$name` for the parameters.
            parameters: Their values.
        """
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            connection.execute("SET enable_external_access = false")
            return query_frame(connection, query, parameters)

    def save_calibration(self, calibration: Calibration) -> int:
        """Keep a calibration taken outside a run, and return its number."""
        with transaction(self.path, wait_s=self._wait_s) as connection:
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
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            return read_calibrations(connection, filters)

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
        rows = prediction_rows(
            list(predictions),
            created_at=created_at or datetime.now(UTC),
            git_commit=git_commit,
            device_name=device_name,
            threads=threads,
        )
        with transaction(self.path, wait_s=self._wait_s) as connection:
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
        trained = trained_at or datetime.now(UTC)
        row = model_row(name, payload, rows=rows, metrics=metrics, versions=versions or {}, trained_at=trained)
        with transaction(self.path, wait_s=self._wait_s) as connection:
            return insert(connection, "prediction_models", [row])[0]

    def load_prediction_model(self, name: str) -> StoredModel | None:
        """Return the newest prediction model of a name; `None` when there is none."""
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            return read_model(connection, name)

    def export_parquet(self, target: Path | str) -> list[Path]:
        """Write the database to Parquet files and return them.

        Args:
            target: A file `*.parquet`, for all measurements with the runs they come from; or a directory, which gets
                a file per table.
        """
        with connected(self.path, write=False, wait_s=self._wait_s) as connection:
            return export(connection, Path(target))

    def import_parquet(self, source: Path | str) -> dict[str, int]:
        """Take over what `export_parquet` wrote, also on another machine, and return how many rows were new, by table.

        A run that is here already is left as it is.

        Args:
            source: The file, or the directory.
        """
        with transaction(self.path, wait_s=self._wait_s) as connection:
            return import_files(connection, Path(source))

    def import_journal(self, journal: Path | str) -> dict[str, int]:
        """Take over the run that a `journal.jsonl` tells of, and return how many rows were new, by table.

        For runs that could not write to the database. A run that is here already is left as it is.

        Args:
            journal: The journal, also that of a run that was killed.
        """
        with transaction(self.path, wait_s=self._wait_s) as connection:
            return import_journal(connection, Path(journal))

    def import_frame(self, frame: Any) -> int:
        """Take over measurements from a pandas frame with the columns of `measured_rows`; return how many were new."""
        with transaction(self.path, wait_s=self._wait_s) as connection:
            return import_frame(connection, frame)[1]

    def merge(self, other: Path | str) -> dict[str, int]:
        """Take over all of another database, and return how many rows were new, by table.

        Args:
            other: Its file; it is only read.
        """
        tables = rows_of_database(Path(other), wait_s=self._wait_s)
        with transaction(self.path, wait_s=self._wait_s) as connection:
            return Merge(connection, tables.__getitem__).run()


_DATABASES = (".duckdb", ".db")
_REPORTS = (".json", ".jsonl")


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
            hint=f"Name a benchmark database ({_DATABASES[0]}), a file {PARQUET} or a directory of them or of reports.",
        )
    found: dict[str, Measurement] = {}
    for measured in _measurements(place):
        found.setdefault(json.dumps(measured.to_json(), sort_keys=True, default=str), measured)
    return list(found.values())


def _measurements(place: Path) -> Iterator[Measurement]:
    if place.is_dir():
        if is_whole(place):
            yield from _of_tables(place)
        for child in sorted(place.iterdir()):
            if child.name.startswith("."):
                continue
            if child.is_dir() or (child.suffix in _READERS and not (child.suffix == PARQUET and is_whole(place))):
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
    with duckdb().connect() as connection:
        rows = measured_rows(connection, path)
    yield from map(measurement_of, rows)


def _of_tables(directory: Path) -> Iterator[Measurement]:
    with duckdb().connect() as connection:
        create_schema(connection)
        import_tables(connection, directory)
        yield from read_measurements(connection, {}, only_real_dimensions=False)


def _of_report(path: Path) -> Iterator[Measurement]:
    lines = path.suffix == ".jsonl"
    try:
        text = path.read_text(encoding="utf-8")
        parts = text.splitlines() if lines else [text]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this report cannot be read: {error}") from error
    for number, part in enumerate(parts, 1):
        try:
            data = json.loads(part)
        except (ValueError, RecursionError) as error:
            if lines and number == len(parts):
                return  # a killed run may leave its last line torn
            raise ConfigError(f"{path}:{number}: this is not JSON: {error}", hint="Move the file away.") from error
        try:
            yield from measurements_in(data)
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error.message}", hint=error.hint) from error
        except RecursionError as error:
            raise ConfigError(f"{path}:{number}: this is nested too deeply.", hint="Move the file away.") from error


_READERS = {
    **dict.fromkeys(_DATABASES, _of_database),
    PARQUET: _of_parquet,
    **dict.fromkeys(_REPORTS, _of_report),
}
