"""The benchmark database: where measurements are kept, and what predictions are learned from and held against."""

from __future__ import annotations

from pytest_hfaccel.history.database import BenchmarkDatabase, open_measurements
from pytest_hfaccel.history.rows import RunRecord, StoredModel
from pytest_hfaccel.history.schema import default_database_path

__all__ = ["BenchmarkDatabase", "RunRecord", "StoredModel", "default_database_path", "open_measurements"]
