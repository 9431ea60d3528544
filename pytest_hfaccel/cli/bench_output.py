"""What `hfaccel bench` leaves behind besides its results: rows of the database, and plots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError, HfAccelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.cli.bench_progress import Progress
    from pytest_hfaccel.core.config import RunConfig

PLOTS = "plots"


def record(path: Path, progress: Progress) -> None:
    """Write the run to the database; what is wrong with it is told, and the results on disk stand."""
    from pytest_hfaccel.history.recording import make_record, record_run

    if not progress.records and not progress.unfinished:
        return
    found = make_record(
        progress.header(),
        test_name="hfaccel bench",
        cells=progress.records,
        measurements=progress.unfinished,
        success=not progress.failed,
    )
    try:
        run_id = record_run(path, found)
    except HfAccelError as error:
        print(f"hfaccel: not in the database: {error}", file=sys.stderr)
    else:
        print(f"database: {path} (run {run_id}: {len(found.measurements)} measurements)")


def draw(measurements: Sequence[Measurement], output_dir: Path) -> None:
    """Draw what was measured; without the packages for that, say so."""
    if not measurements:
        return
    from pytest_hfaccel.plots import plot_measurements

    try:
        files = plot_measurements(measurements, output_dir / PLOTS)
    except ConfigError as error:
        print(f"hfaccel: no plots: {error}", file=sys.stderr)
    else:
        print(f"plots: {output_dir / PLOTS} ({', '.join(file.name for file in files)})")


def visualize(config: RunConfig, output_dir: Path) -> int:
    """Draw all measurements of the database.

    Raises:
        ConfigError: There is no database, it cannot be read, or it holds no measurements.
    """
    from pytest_hfaccel.history import open_measurements

    path = config.database_path
    if path is None:
        raise ConfigError("--visualize-from-db: --no-db-store leaves no database to read.")
    measurements = open_measurements(path)
    if not measurements:
        raise ConfigError(f"{path}: it holds no measurements.", hint="`hfaccel bench` makes some.")
    draw(measurements, output_dir)
    return 0
