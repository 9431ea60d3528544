"""The benchmark database: where measurements are kept, and what predictions are learned from and held against."""

from __future__ import annotations

from pytest_hfaccel.benchmark.store.database import BenchmarkDatabase
from pytest_hfaccel.benchmark.store.location import default_database_path
from pytest_hfaccel.benchmark.store.opening import open_measurements
from pytest_hfaccel.benchmark.store.records import RunRecord, StoredModel

__all__ = ["BenchmarkDatabase", "RunRecord", "StoredModel", "default_database_path", "open_measurements"]
