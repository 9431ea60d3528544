"""`hfaccel bench`: verify and measure models on the hardware of this machine, and store and plot the results."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import devices_of, whole_number, write_file
from pytest_hfaccel.core.config import WEIGHTS_CHOICES
from pytest_hfaccel.core.errors import ConfigError, HfAccelError, first_line
from pytest_hfaccel.core.results import CellResult, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.campaign import Campaign, PointResult, Run
    from pytest_hfaccel.cli.progress import StepProgress
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.spec import Cell, ModelSpec, WeightsChoice

RESULTS, PLOTS = "results.json", "plots"
_WARM_UP, _ITERATIONS = 5, 20
"""What `--warmup` and `--iterations` mean without a number, as in the guide's runner."""


def add_parser(commands: Any) -> None:
    """Add `bench` to the parsers of `hfaccel`."""
    text = "Verify models on devices, measure them in isolated processes, and store the results."
    parser = commands.add_parser("bench", help="verify and measure models on devices", description=text)
    add_options(parser)
    parser.set_defaults(run=_run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, in groups."""
    group = parser.add_argument_group("models and points")
    group.add_argument(
        "--models-set", choices=("key", "small", "custom"), default="small", help="which models (default: %(default)s)"
    )
    text = "models of the set custom: names, wildcards, directories, hub ids, or JSON files that list them"
    group.add_argument("--custom-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "measure only these models of the set: names or wildcards"
    group.add_argument("--specific-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "devices or kinds of device (default: all devices of this machine)"
    group.add_argument("--hardware", nargs="+", default=[], metavar="DEVICE", help=text)
    text = "precisions (default: fp32)"
    group.add_argument("--dtypes", nargs="+", default=["fp32"], metavar="DTYPE", help=text)
    text = "batch sizes (default: 1 4 8)"
    group.add_argument("--batch-sizes", nargs="+", type=whole_number, default=[1, 4, 8], metavar="N", help=text)
    text = "tokens per sample, for models with text (default: 128)"
    group.add_argument("--seq-lengths", nargs="+", type=whole_number, default=[128], metavar="N", help=text)
    text = "auto: pretrained weights if they are on this machine, otherwise random ones, which are as fast"
    group.add_argument("--weights", choices=WEIGHTS_CHOICES, default="auto", help=text)
    only = group.add_mutually_exclusive_group()
    only.add_argument("--verify-only", action="store_true", help="verify the results and measure nothing")
    only.add_argument("--benchmark-only", action="store_true", help="measure without verifying first")

    group = parser.add_argument_group("measuring")
    text = "number of warm-up runs (default: until they are stable; without N: %(const)s)"
    group.add_argument("--warmup", nargs="?", type=whole_number, const=_WARM_UP, metavar="N", help=text)
    text = "number of timed runs (default: until the median is known well enough; without N: %(const)s)"
    group.add_argument("--iterations", nargs="?", type=whole_number, const=_ITERATIONS, metavar="N", help=text)
    text = "measure until half the 95%% interval of the median is below this share of it (default: %(default)s)"
    group.add_argument("--relative-error", type=float, default=0.02, metavar="X", help=text)
    text = "time limit for the timed runs of a point, in seconds (default: %(default)s)"
    group.add_argument("--max-seconds", type=float, default=3.0, metavar="S", help=text)
    text = "CPU threads (default: the cores this process may use)"
    group.add_argument("--threads", type=whole_number, metavar="N", help=text)
    text = "time limit for preparing a cell, and for each point, in seconds (default: %(default)s)"
    group.add_argument("--timeout", type=float, default=600.0, metavar="S", help=text)
    text = "measure in this process: memory is less exact, and a crash ends everything"
    group.add_argument("--in-process", action="store_true", help=text)
    text = "with --in-process: load the model of each cell again instead of taking it from the pool"
    group.add_argument("--no-resource-pool", action="store_true", help=text)

    group = parser.add_argument_group("output")
    text = "directory for the results and plots (default: %(default)s)"
    group.add_argument("--output-dir", default="benchmark_results", metavar="DIR", help=text)
    text = "benchmark database (default: BENCHMARK_DB_PATH, else hfaccel.duckdb in the working directory)"
    group.add_argument("--db-path", metavar="FILE", help=text)
    group.add_argument("--no-db-store", action="store_true", help="do not write to the database")
    group.add_argument("--no-plots", action="store_true", help="draw no plots")
    text = "draw the measurements of the database and measure nothing"
    group.add_argument("--visualize-from-db", action="store_true", help=text)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.config import NO_DATABASE, RunConfig

    database = NO_DATABASE if arguments.no_db_store else arguments.db_path
    config = RunConfig.from_values({"database": database, "performance": True})
    output_dir = Path(arguments.output_dir)
    if arguments.visualize_from_db:
        return _visualize(config, output_dir)
    if config.database_path is not None:
        from pytest_hfaccel.history.connection import require_database

        require_database(config.database_path, "bench", "do without the database: --no-db-store")
    campaign = make_campaign(arguments, config)
    progress = Progress(campaign, output_dir)
    serve, close = _server(arguments, config)
    try:
        progress.run(serve)
    finally:
        # Also after Ctrl-C: what was measured until then is not lost.
        close()
        if config.database_path is not None:
            _record(config.database_path, progress)
    if not arguments.no_plots:
        _draw(progress.measurements, output_dir)
    return int(progress.failed)


def make_campaign(arguments: argparse.Namespace, config: RunConfig) -> Campaign:
    """Read from the arguments what is to be measured."""
    from pytest_hfaccel.benchmark.timing import TimingBudget
    from pytest_hfaccel.campaign import Campaign
    from pytest_hfaccel.hardware.cpu import read_cpu

    budget = TimingBudget(
        relative_error=arguments.relative_error,
        max_seconds=arguments.max_seconds,
        warm_up=arguments.warmup,
        runs=arguments.iterations,
    )
    return Campaign(
        cells=_cells(arguments, config),
        batches=() if arguments.verify_only else tuple(dict.fromkeys(arguments.batch_sizes)),
        lengths=tuple(dict.fromkeys(arguments.seq_lengths)),
        threads=arguments.threads or read_cpu().cores,
        cache_dir=config.cache_dir,
        timeout=arguments.timeout,
        budget=budget,
        verify=not arguments.benchmark_only,
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
    )


def _cells(arguments: argparse.Namespace, config: RunConfig) -> list[Cell]:
    from pytest_hfaccel.campaign.model_sets import models_of_set
    from pytest_hfaccel.engine.plan import expand_matrix, require_dtypes
    from pytest_hfaccel.registry import load_registry

    require_dtypes(arguments.dtypes, "--dtypes")
    devices = devices_of(arguments.hardware)
    registry = load_registry(config.registry_files, cache_dir=config.cache_dir)
    specs = models_of_set(arguments.models_set, registry, arguments.custom_models, arguments.specific_models)
    weights = {spec.name: _weights(spec, arguments.weights) for spec in specs}
    return expand_matrix(specs, devices, arguments.dtypes, lambda spec: weights[spec.name])


def _weights(spec: ModelSpec, wanted: str) -> WeightsChoice:
    """Choose weights; `auto` never chooses tiny ones, whose speed says nothing about the model."""
    from pytest_hfaccel.checkpoints.store import choose_weights
    from pytest_hfaccel.core.spec import Weights, WeightsChoice

    choice = choose_weights(spec, wanted, named=False)
    if wanted == "auto" and choice.kind == Weights.TINY:
        return WeightsChoice(Weights.RANDOM, f"{choice.reason}; random ones of the real dimensions are as fast")
    return choice


def _server(arguments: argparse.Namespace, config: RunConfig) -> tuple[Run, Any]:
    from pytest_hfaccel.campaign.processes import run_isolated

    if not arguments.in_process:
        return run_isolated, lambda: None
    from pytest_hfaccel.campaign.in_process import InProcessWorker

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    server = InProcessWorker(config, pooled=not arguments.no_resource_pool)
    return server, server.close


class Progress:
    """Runs a campaign, shows its steps, says a line per result, and keeps `results.json` up to date.

    Args:
        campaign: What is verified and measured.
        output_dir: The folder of `results.json`; made when needed.
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
        self._campaign, self._file = campaign, output_dir / RESULTS
        self._say, self._clock, self._began = say, clock, clock()
        self._done = 0
        self._shown: StepProgress
        self._header = _header()
        self.records: list[CellResult] = []
        self.unfinished: list[Measurement] = []
        """What has been measured of the cell that is not finished."""

    @property
    def measurements(self) -> list[Measurement]:
        """What has been measured, also of a cell that is not finished."""
        from pytest_hfaccel.history.recording import measurements_of

        return [*measurements_of(self.records), *self.unfinished]

    @property
    def failed(self) -> bool:
        """Whether a cell failed; one whose device is absent, or that does not fit, did not fail."""
        return any(record.status.is_bad for record in self.records)

    def header(self) -> dict[str, Any]:
        """Return what is known of the run, up to now."""
        return {**self._header, "finished": datetime.now(UTC).isoformat(timespec="seconds")}

    def run(self, serve: Run) -> None:
        """Verify and measure; `serve` serves the request of a cell.

        Raises:
            ConfigError: The results cannot be written.
        """
        from pytest_hfaccel.campaign import run_campaign
        from pytest_hfaccel.cli.progress import StepProgress

        cells, steps = len(self._campaign.cells), self._campaign.steps
        self._say(f"{cells} cells, {steps} steps, {self._campaign.threads} threads; results: {self._file}")
        self._write()
        with StepProgress(steps, "steps") as steps_shown:
            self._shown = steps_shown
            self._begin_step()
            for record in run_campaign(self._campaign, self._report, serve):
                self.records.append(record)
                self.unfinished.clear()
                self._write()

    def _begin_step(self) -> None:
        """Show which step comes next."""
        if self._done < self._campaign.steps:
            self._shown.begin(next(islice(self._step_names(), self._done, None)))

    def _step_names(self) -> Iterator[str]:
        for cell in self._campaign.cells:
            name = f"{cell.model.name} {cell.device} {cell.dtype}"
            if self._campaign.verify:
                yield f"{name}: verifying"
            for point in self._campaign.points(cell):
                yield f"{name}: measuring {_point_text(point.batch, point.length)}"

    def _report(self, cell: Cell, result: CellResult | PointResult) -> None:
        from pytest_hfaccel.benchmark.measurement import Measurement

        self._done += 1
        self._shown.finish()
        self._begin_step()
        if isinstance(result, Measurement):
            self.unfinished.append(result)
            self._write()
        left = self._campaign.steps - self._done
        seconds = (self._clock() - self._began) / self._done * left
        remaining = f", about {seconds / 60:.0f} min left" if seconds >= 60 else ""
        where = f"[{self._done}/{self._campaign.steps}{remaining}]"
        self._say(f"{where} {cell.model.name} [{cell.weights.kind}] {cell.device} {cell.dtype} {describe(result)}")

    def _write(self) -> None:
        content = {
            "run": self.header(),
            "cells": [record.to_json() for record in self.records],
            "measurements": [one.to_json() for one in self.unfinished],
        }
        write_file(self._file, json.dumps(content, indent=1), "--output-dir")


def describe(result: CellResult | PointResult) -> str:
    """Return a result in words."""
    from pytest_hfaccel.benchmark.measurement import Measurement

    if isinstance(result, CellResult):
        names = ", ".join(check.name for check in result.checks)
        if result.status == Status.PASSED:
            return f"verified: {names}"
        return f"not verified: {result.status}: {first_line(result.reason)}"
    where = _point_text(result.batch, result.length)
    if isinstance(result, Measurement):
        latency, memory, token = result.latency, result.memory_bytes, result.per_token_ms
        text = f"{where}: {latency.median_ms:,.2f} ms ±{latency.relative_error:.1%}"
        text += f", {result.samples_per_second:,.1f} samples/s"
        text += "" if memory is None else f", {memory / 2**20:,.0f} MiB"
        return text + (f", {token:,.2f} ms per token" if token else "")
    return f"{where}: {result.status}: {first_line(result.reason)}"


def _point_text(batch: int, length: int) -> str:
    return f"batch {batch}" + (f" length {length}" if length else "")


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


def _record(path: Path, progress: Progress) -> None:
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


def _draw(measurements: Sequence[Measurement], output_dir: Path) -> None:
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


def _visualize(config: RunConfig, output_dir: Path) -> int:
    from pytest_hfaccel.history import open_measurements

    path = config.database_path
    if path is None:
        raise ConfigError("--visualize-from-db: --no-db-store leaves no database to read.")
    measurements = open_measurements(path)
    if not measurements:
        raise ConfigError(f"{path}: it contains no measurements.", hint="`hfaccel bench` makes some.")
    _draw(measurements, output_dir)
    return 0
