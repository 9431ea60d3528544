"""Measurements from wherever they are kept: a database, Parquet files, the reports of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.store.database import BenchmarkDatabase
from pytest_hfaccel.benchmark.store.found import measurements_in
from pytest_hfaccel.benchmark.store.importing import import_tables, is_whole, measured_rows
from pytest_hfaccel.benchmark.store.packages import duckdb
from pytest_hfaccel.benchmark.store.parquet import SUFFIX
from pytest_hfaccel.benchmark.store.performance import measurement_of
from pytest_hfaccel.benchmark.store.reading import read_measurements
from pytest_hfaccel.benchmark.store.schema import create_schema
from pytest_hfaccel.errors import ConfigError

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
            hint=f"Name a benchmark database ({_DATABASES[0]}), a file {SUFFIX} or a directory of them or of reports.",
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
            if child.is_dir() or (child.suffix in _READERS and not (child.suffix == SUFFIX and is_whole(place))):
                yield from _measurements(child)
    elif place.suffix in _READERS:
        yield from _READERS[place.suffix](place)
    else:
        raise ConfigError(
            f"{place}: {place.suffix or 'a file without an ending'} is no kind of file that holds measurements. "
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
    SUFFIX: _of_parquet,
    **dict.fromkeys(_REPORTS, _of_report),
}
