"""DuckDB and pandas are imported when they are needed, and asked for when they are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history import BenchmarkDatabase

ASK = r"the package {0}, which cannot be imported(.|\n)*pip install 'pytest-hfaccel\[predict\]'"


def test_duckdb_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError, match=ASK.format("duckdb")):
        BenchmarkDatabase(tmp_path / "a.duckdb")


def test_pandas_is_asked_for_only_by_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = BenchmarkDatabase(tmp_path / "a.duckdb")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert database.measurements() == []
    with pytest.raises(ConfigError, match=ASK.format("pandas")):
        database.frame("models")


def test_the_import_is_free_of_heavy_packages() -> None:
    code = "import sys, pytest_hfaccel.history\nprint(*{'duckdb', 'pandas', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
