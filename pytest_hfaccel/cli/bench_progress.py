"""Output of `hfaccel bench`: a line per result, a results file that is always current, database rows, plots."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.results import CellResult, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.campaign import Campaign, PointResult, Run
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.spec import Cell


RESULTS = "results.json"


class Progress:
    """Runs a campaign and reports its progress.

    Args:
        campaign: What is verified and measured.
        output_dir: Where `results.json` is kept up to date; made when needed.
        say: Writes a line.
        clock: Seconds, for the remaining time.
    """

    def __init__(
        self,
        campaign: Campaign,
        output_dir: Path,
        say: Callable[[str], Any] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._campaign = campaign
        self._file = output_dir / RESULTS
        self._say = say
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._header = _header()
        self._unfinished: list[Measurement] = []
        self.records: list[CellResult] = []

    @property
    def measurements(self) -> list[Measurement]:
        """What has been measured, also of a cell that is not finished."""
        from pytest_hfaccel.history.recording import measurements_of

        return [*measurements_of(self.records), *self._unfinished]

    @property
    def unfinished(self) -> list[Measurement]:
        """What has been measured of the cell that is not finished."""
        return list(self._unfinished)

    @property
    def failed(self) -> bool:
        """Whether a cell failed; one that is not here, or does not fit, did not."""
        return any(record.status.is_bad for record in self.records)

    def header(self) -> dict[str, Any]:
        """What is known of the run, up to now."""
        return {**self._header, "finished": datetime.now(UTC).isoformat(timespec="seconds")}

    def run(self, serve: Run) -> None:
        """Verify and measure.

        Args:
            serve: Serves the request of a cell.

        Raises:
            ConfigError: The results cannot be written.
        """
        from pytest_hfaccel.campaign import run_campaign

        cells, steps = len(self._campaign.cells), self._campaign.steps
        self._say(f"{cells} cells, {steps} steps, {self._campaign.threads} threads; results: {self._file}")
        self._write()
        for record in run_campaign(self._campaign, self._report, serve):
            self.records.append(record)
            self._unfinished.clear()
            self._write()

    def _report(self, cell: Cell, result: CellResult | PointResult) -> None:
        from pytest_hfaccel.benchmark.measurement import Measurement

        self._done += 1
        if isinstance(result, Measurement):
            self._unfinished.append(result)
            self._write()
        where = f"[{self._done}/{self._campaign.steps}{self._remaining()}]"
        self._say(f"{where} {cell.model.name} [{cell.weights.kind}] {cell.device} {cell.dtype} {describe(result)}")

    def _remaining(self) -> str:
        left = self._campaign.steps - self._done
        seconds = (self._clock() - self._began) / self._done * left
        return f", about {seconds / 60:.0f} min left" if seconds >= 60 else ""

    def _write(self) -> None:
        from pytest_hfaccel.core.files import replace_file

        content = {
            "run": self.header(),
            "cells": [record.to_json() for record in self.records],
            "measurements": [one.to_json() for one in self._unfinished],
        }
        try:
            replace_file(self._file, json.dumps(content, indent=1))
        except OSError as error:
            raise ConfigError(f"--output-dir: {self._file} cannot be written: {error.strerror or error}") from error


def describe(result: CellResult | PointResult) -> str:
    """Return a result in words."""
    from pytest_hfaccel.benchmark.measurement import Measurement

    if isinstance(result, CellResult):
        first = (result.reason or "").partition("\n")[0]
        names = ", ".join(check.name for check in result.checks)
        return f"verified: {names}" if result.status == Status.PASSED else f"not verified: {result.status}: {first}"
    where = f"batch {result.batch}" + (f" length {result.length}" if result.length else "")
    if isinstance(result, Measurement):
        return f"{where}: {_numbers(result)}"
    return f"{where}: {result.status}: {result.reason.partition(chr(10))[0]}"


def _numbers(one: Measurement) -> str:
    text = f"{one.latency.median_ms:,.2f} ms ±{one.latency.relative_error:.1%}, {one.samples_per_second:,.1f} samples/s"
    if one.memory_bytes is not None:
        text += f", {one.memory_bytes / 2**20:,.0f} MiB"
    return text + (f", {one.per_token_ms:,.2f} ms per token" if one.per_token_ms else "")


def _header() -> dict[str, Any]:
    from pytest_hfaccel.hardware import machine_facts
    from pytest_hfaccel.reporting.plain import redact
    from pytest_hfaccel.reporting.run_facts import git_commit

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": redact(" ".join(["hfaccel", *sys.argv[1:]])),
        "commit": git_commit(Path.cwd()),
        "machine": machine_facts(),
    }


PLOTS = "plots"


def record(path: Path, progress: Progress) -> None:
    """Write the run to the database; an error of the database is printed, and the results on disk stay."""
    from pytest_hfaccel.history import BenchmarkDatabase
    from pytest_hfaccel.history.recording import make_record

    if not progress.records and not progress.unfinished:
        return
    run = make_record(
        progress.header(),
        test_name="hfaccel bench",
        cells=progress.records,
        measurements=progress.unfinished,
        success=not progress.failed,
    )
    try:
        run_id = BenchmarkDatabase(path).write_run(run)
    except HfAccelError as error:
        print(f"hfaccel: not in the database: {error}", file=sys.stderr)
    else:
        print(f"database: {path} (run {run_id}: {len(run.measurements)} measurements)")


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
        raise ConfigError(f"{path}: it contains no measurements.", hint="`hfaccel bench` makes some.")
    draw(measurements, output_dir)
    return 0
