"""What predictions rest on - measured rows, calibrations and trained models - and where they are kept beside them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.prediction import Prediction, Question
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.layers.measured import MeasuredPoint, points_of
from pytest_hfaccel.predict.measured_cells import MeasuredCell, cells_of_database
from pytest_hfaccel.predict.naming import NamedModel
from pytest_hfaccel.predict.platforms import Platform

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.history import BenchmarkDatabase
    from pytest_hfaccel.predict.calibration import DeviceCalibration
    from pytest_hfaccel.predict.learning.models import TrainedModels

MODELS_FOLDER = "prediction_models"
"""Where `hfaccel predict --train` leaves trained models, inside the cache directory."""


class Evidence:
    """Measured rows, calibrations and trained models. What cannot be read is noted, and predictions do without it.

    Args:
        cache_dir: Where calibrations and trained models are kept.
        database_path: A benchmark database, or a file or directory that `open_measurements` reads.
        benchmark_dir: A directory with results, likewise.
        models_dir: A directory with trained models, instead of the one in the cache.
        rows_of_runs: Gives the rows that the reports of runs hold.

    Attributes:
        notes: What could not be read, or written, and why.
    """

    def __init__(
        self,
        cache_dir: Path,
        database_path: Path | None = None,
        benchmark_dir: Path | None = None,
        models_dir: Path | None = None,
        rows_of_runs: Callable[[], list[Measurement]] = list,
    ) -> None:
        self._cache_dir, self._database, self._benchmarks = cache_dir, database_path, benchmark_dir
        self._models_dir, self._rows_of_runs = models_dir, rows_of_runs
        self._open: BenchmarkDatabase | None = None
        self._cannot_keep = False
        self.notes: list[str] = []

    @cached_property
    def rows(self) -> list[Measurement]:
        """All measured rows, each once: a run may have left its rows in its reports and in the database."""
        rows = [*self.kept_rows, *self._rows_of_runs()]
        return list({(row.model, row.device, row.dtype, row.mode, repr(row.latency)): row for row in rows}.values())

    @cached_property
    def kept_rows(self) -> list[Measurement]:
        """The rows of the database and of the directory with results."""
        return [row for place in (self._database, self._benchmarks) if place for row in self._read(place)]

    @cached_property
    def cells(self) -> list[MeasuredCell]:
        """The cells of the runs that the database has, oldest run first."""
        if self._database is None or not is_database(self._database) or not self._database.is_file():
            return []
        from pytest_hfaccel.history import BenchmarkDatabase

        try:
            return cells_of_database(BenchmarkDatabase(self._database, create=False))
        except (HfAccelError, ValueError) as error:
            self.notes.append(f"{self._database}: its cells cannot be read: {error}")
            return []

    @cached_property
    def _calibrations_here(self) -> list[DeviceCalibration]:
        from pytest_hfaccel.predict.calibration import load_calibrations

        return load_calibrations(self._cache_dir)

    @cached_property
    def calibrations(self) -> list[DeviceCalibration]:
        """The calibrations of this machine, then those of the database; the newest first in each."""
        from pytest_hfaccel.predict.calibration import DeviceCalibration

        found = list(self._calibrations_here)
        if self._database is None or not is_database(self._database) or not self._database.is_file():
            return found
        from pytest_hfaccel.history import BenchmarkDatabase

        try:
            for data in BenchmarkDatabase(self._database, create=False).calibrations():
                found.append(DeviceCalibration.from_json(data))
        except (HfAccelError, ValueError, KeyError, TypeError) as error:
            self.notes.append(f"{self._database}: its calibrations cannot be read: {error}")
        return found

    @cached_property
    def models(self) -> TrainedModels | None:
        """The trained models; `None` where there are none."""
        directory = self._models_dir or self._cache_dir / MODELS_FOLDER
        if self._models_dir is None and not directory.is_dir():
            return None
        try:
            from pytest_hfaccel.predict.learning.models import TrainedModels

            return TrainedModels.load(directory)
        except ImportError as error:
            self.notes.append(f"trained models need scikit-learn: {error} (pip install 'pytest-hfaccel[predict]')")
        except HfAccelError as error:
            self.notes.append(error.message)
        return None

    def name_here(self, device: Device) -> str:
        """Return what a device of this machine called itself when it was calibrated here; empty where it was not.

        WebGPU's adapter is known only once a page has asked for it.
        """
        return next((each.device_name for each in self._calibrations_here if each.device == device.id), "")

    def known_devices(self) -> list[Presence]:
        """Return the devices that have rows or calibrations, the newest rows first."""
        seen = [(row.device, row.device_name) for row in reversed(self.rows) if row.implementation == "real"]
        seen += [(each.device, each.device_name) for each in self.calibrations]
        parts = [
            (Device(kind_of(device), device.partition("+")[0].partition(":")[2]), name)
            for device, name in dict.fromkeys(seen)
        ]
        return [Presence(device, False, "measured before", name) for device, name in parts]

    def points(self, model: NamedModel, platform: Platform, question: Question, threads: int) -> list[MeasuredPoint]:
        """Return what was measured of a model on a platform, at a question's dtype and mode.

        Rows of another chip of the same kind are another device's. Of CPU rows those with `threads` threads count, and
        where there are none, those with the number of threads most rows have.
        """
        mode = "training" if question.training else "inference"
        rows = [
            row
            for name in model.measured_names
            for row in self._by_model.get(name, ())
            if row.device == platform.device
            and row.device_name == platform.device_name
            and (row.dtype, row.mode) == (question.dtype, mode)
            and row.architecture == model.architecture
        ]
        counts = [row.threads for row in rows]
        wanted = threads if threads in counts else max(set(counts), key=counts.count, default=threads)
        return points_of(row for row in rows if row.threads == wanted)

    @cached_property
    def _by_model(self) -> dict[str, list[Measurement]]:
        found = defaultdict(list)
        for row in self.rows:
            found[row.model].append(row)
        return dict(found)

    def _read(self, place: Path) -> list[Measurement]:
        if not place.exists():
            self.notes.append(f"{place}: there is no such file or directory, so it has no measured rows")
            return []
        try:
            from pytest_hfaccel.history.database import open_measurements

            return open_measurements(place)
        except HfAccelError as error:
            self.notes.append(error.message)
            return []

    def keep(self, predictions: Iterable[Prediction]) -> None:
        """Write the predictions that have a number into the database; any other file is only read.

        A prediction is an answer first: where the database cannot be written, that is noted and nothing is raised.
        """
        numbered = [each for each in predictions if each.latency_ms is not None]
        if self._database is None or not is_database(self._database) or self._cannot_keep or not numbered:
            return
        try:
            from pytest_hfaccel.history import BenchmarkDatabase

            self._open = self._open or BenchmarkDatabase(self._database)
            self._open.save_predictions(numbered)
        except HfAccelError as error:
            self.notes.append(f"predictions are not kept: {error.message}")
            self._cannot_keep = True


def is_database(path: Path) -> bool:
    """Whether a path names a database, into which predictions can be written."""
    return path.suffix in (".duckdb", ".db")


def default_database(given: str | os.PathLike[str] | None) -> Path | None:
    """Return the database to read: the one given, else the default one where it exists.

    Raises:
        ConfigError: The path is empty.
    """
    if given is not None:
        if not str(given):
            raise ConfigError("database: the path is empty.")
        return Path(given).expanduser()
    from pytest_hfaccel.history.schema import default_database_path

    path = default_database_path()
    return path if path.is_file() else None
