"""The packages of the extra `predict`, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pytest_hfaccel.errors import ConfigError


def duckdb() -> Any:
    """Return the module duckdb.

    Raises:
        ConfigError: It is not installed.
    """
    return _imported("duckdb")


def pandas() -> Any:
    """Return the module pandas, which DuckDB imports by itself when it makes a frame.

    Raises:
        ConfigError: It is not installed.
    """
    return _imported("pandas")


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the benchmark database needs the package {name}, which cannot be imported: {error}",
            hint="Install it with: pip install 'pytest-hfaccel[predict]'",
        ) from error
