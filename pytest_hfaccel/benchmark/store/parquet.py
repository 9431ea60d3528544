"""Names of Parquet files in SQL. DuckDB reads and writes them itself: pandas would need pyarrow for it."""

from __future__ import annotations

import glob
from pathlib import Path

SUFFIX = ".parquet"


def quoted(path: Path) -> str:
    """Return the name of a file that is written, as an SQL literal."""
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def rows_in(path: Path) -> str:
    """Return the SQL relation of the rows of a file: of this one, whatever its name and its directories mean."""
    literal = quoted(Path(glob.escape(str(path.absolute()))))
    return f"read_parquet({literal}, hive_partitioning = false)"
