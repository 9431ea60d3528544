"""Predictions are kept beside measurements, so that later ones can be compared with earlier promises."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.predict.evidence import is_database
from pytest_hfaccel.predict.prediction import Prediction

if TYPE_CHECKING:
    from pytest_hfaccel.history import BenchmarkDatabase


class Feedback:
    """Keeps predictions in the database.

    Args:
        database: The database; `None` to keep none. A file of another kind (Parquet, a report) is only read.
        notes: Told when they cannot be kept.
    """

    def __init__(self, database: Path | None, notes: list[str]) -> None:
        self._path = database if database is not None and is_database(database) else None
        self._notes = notes
        self._open: BenchmarkDatabase | None = None

    def keep(self, predictions: Iterable[Prediction]) -> int:
        """Write the predictions that have a number, and return how many these were.

        A prediction is an answer first: where the database cannot be written, that is noted and nothing is raised.
        """
        numbered = [each for each in predictions if each.latency_ms is not None]
        if self._path is None or not numbered:
            return 0
        try:
            from pytest_hfaccel.history import BenchmarkDatabase

            self._open = self._open or BenchmarkDatabase(self._path)
            return len(self._open.save_predictions(numbered))
        except HfAccelError as error:
            self._notes.append(f"predictions are not kept: {error.message}")
            self._path = None
            return 0
