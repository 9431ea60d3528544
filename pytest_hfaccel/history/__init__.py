"""The benchmark database: where measurements are kept, and what predictions are learned from and held against."""

from __future__ import annotations

from pytest_hfaccel.history.database import BenchmarkDatabase, StoredModel, open_measurements
from pytest_hfaccel.history.recording import RunRecord
from pytest_hfaccel.history.schema import default_database_path

__all__ = ["BenchmarkDatabase", "RunRecord", "StoredModel", "default_database_path", "open_measurements"]
