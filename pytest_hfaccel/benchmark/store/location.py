"""Where the benchmark database is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "BENCHMARK_DB_PATH"
FILE = "hfaccel.duckdb"


def default_database_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the database: `BENCHMARK_DB_PATH`, or `hfaccel.duckdb` in the working directory.

    Args:
        environ: The environment variables; those of this process where it is not given.
    """
    given = (os.environ if environ is None else environ).get(VARIABLE, "")
    return Path(given).expanduser() if given else Path(FILE)
