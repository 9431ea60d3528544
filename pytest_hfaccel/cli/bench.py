"""`hfaccel bench`: verify and measure models on the hardware of this machine, and store and plot the results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.campaign import Campaign, Run
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.spec import Cell, ModelSpec, WeightsChoice


def add_parser(commands: Any) -> None:
    """Add `bench` to the parsers of `hfaccel`."""
    text = "Verify models on devices, measure them in isolated processes, and store the results."
    parser = commands.add_parser("bench", help="verify and measure models on devices", description=text)
    add_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.cli.bench_progress import Progress, draw, record, visualize

    config = _config(arguments)
    if arguments.visualize_from_db:
        return visualize(config, Path(arguments.output_dir))
    _require_database(arguments)
    campaign = make_campaign(arguments, config)
    progress = Progress(campaign, Path(arguments.output_dir))
    serve, close = _server(arguments, config)
    try:
        progress.run(serve)
    finally:
        # Also after Ctrl-C: what was measured until then is not lost.
        close()
        if config.database_path is not None:
            record(config.database_path, progress)
    if not arguments.no_plots:
        draw(progress.measurements, Path(arguments.output_dir))
    return int(progress.failed)


def make_campaign(arguments: argparse.Namespace, config: RunConfig) -> Campaign:
    """Read what is to be measured from the arguments.

    Raises:
        ConfigError: A model, device or precision that cannot be.
    """
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
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.campaign.model_sets import models_of_set
    from pytest_hfaccel.core.spec import Device
    from pytest_hfaccel.engine.plan import expand_matrix, require_dtypes
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.registry import load_registry

    require_dtypes(arguments.dtypes, "--dtypes")
    backends = Backends()
    asked = [Device.parse(text, backends.kinds()) for text in arguments.hardware]
    devices = asked or probe_devices(backends=backends).present()
    registry = load_registry(config.registry_files, cache_dir=config.cache_dir)
    specs = models_of_set(arguments.models_set, registry, arguments.custom_models, arguments.specific_models)
    weights = {spec.name: _weights(spec, arguments.weights) for spec in specs}
    return expand_matrix(specs, list(dict.fromkeys(devices)), arguments.dtypes, lambda spec: weights[spec.name])


def _weights(spec: ModelSpec, wanted: str) -> WeightsChoice:
    """Choose weights; `auto` never gives tiny ones, whose speed says nothing of the model."""
    from pytest_hfaccel.checkpoints.store import choose_weights
    from pytest_hfaccel.core.spec import Weights, WeightsChoice

    choice = choose_weights(spec, wanted, named=False)
    if wanted == "auto" and choice.kind == Weights.TINY:
        return WeightsChoice(Weights.RANDOM, f"{choice.reason}; random ones of the real dimensions are as fast")
    return choice


def _config(arguments: argparse.Namespace) -> RunConfig:
    from pytest_hfaccel.core.config import NO_DATABASE, RunConfig

    database = NO_DATABASE if arguments.no_db_store else arguments.db_path
    return RunConfig.from_values({"database": database, "performance": True})


def _require_database(arguments: argparse.Namespace) -> None:
    """Find out before the measuring, not after it, that nothing can be stored."""
    from importlib.util import find_spec

    if not arguments.no_db_store and find_spec("duckdb") is None:
        raise ConfigError(
            "bench: the package duckdb is not installed.",
            hint="Install it with: pip install 'pytest-hfaccel[predict]', or do without the database: --no-db-store.",
        )


def _server(arguments: argparse.Namespace, config: RunConfig) -> tuple[Run, Any]:
    from pytest_hfaccel.campaign.processes import run_isolated

    if not arguments.in_process:
        return run_isolated, lambda: None
    from pytest_hfaccel.campaign.in_process import InProcessWorker

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    server = InProcessWorker(config, pooled=not arguments.no_resource_pool)
    return server, server.close


_SETS = ("key", "small", "custom")
_WEIGHTS = ("auto", "pretrained", "random", "tiny")
_WARM_UP, _ITERATIONS = 5, 20
"""What `--warmup` and `--iterations` stand for when they are given without a number, as in the guide's runner."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, in groups."""
    _add_what(parser)
    _add_how(parser)
    _add_where(parser)


def _add_what(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models and points")
    group.add_argument("--models-set", choices=_SETS, default="small", help="which models (default: %(default)s)")
    text = "models of the set custom: names, wildcards, directories, hub ids, or JSON files that list them"
    group.add_argument("--custom-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "measure only these of the set: names or wildcards"
    group.add_argument("--specific-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "devices or kinds of device (default: all devices of this machine)"
    group.add_argument("--hardware", nargs="+", default=[], metavar="DEVICE", help=text)
    text = "precisions (default: fp32)"
    group.add_argument("--dtypes", nargs="+", default=["fp32"], metavar="DTYPE", help=text)
    text = "batch sizes (default: 1 4 8)"
    group.add_argument("--batch-sizes", nargs="+", type=_count, default=[1, 4, 8], metavar="N", help=text)
    text = "tokens per sample, for models with text (default: 128)"
    group.add_argument("--seq-lengths", nargs="+", type=_count, default=[128], metavar="N", help=text)
    text = "auto: pretrained weights where they are on this machine, else random ones, which are as fast"
    group.add_argument("--weights", choices=_WEIGHTS, default="auto", help=text)
    only = group.add_mutually_exclusive_group()
    only.add_argument("--verify-only", action="store_true", help="verify the results and measure nothing")
    only.add_argument("--benchmark-only", action="store_true", help="measure without verifying first")


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("measuring")
    text = "number of warm-up runs (default: until they are stable; without N: %(const)s)"
    group.add_argument("--warmup", nargs="?", type=_count, const=_WARM_UP, metavar="N", help=text)
    text = "number of timed runs (default: until the median is known well enough; without N: %(const)s)"
    group.add_argument("--iterations", nargs="?", type=_count, const=_ITERATIONS, metavar="N", help=text)
    text = "accuracy of the median to reach: half its 95%% interval as a share (default: %(default)s)"
    group.add_argument("--relative-error", type=float, default=0.02, metavar="X", help=text)
    text = "upper limit for the timed runs of a point, in seconds (default: %(default)s)"
    group.add_argument("--max-seconds", type=float, default=3.0, metavar="S", help=text)
    text = "CPU threads (default: the cores this process may use)"
    group.add_argument("--threads", type=_count, metavar="N", help=text)
    text = "seconds for preparing a cell, and for each point (default: %(default)s)"
    group.add_argument("--timeout", type=float, default=600.0, metavar="S", help=text)
    text = "measure in this process: memory is less exact, and a crash ends everything"
    group.add_argument("--in-process", action="store_true", help=text)
    text = "with --in-process: load the model of each cell again instead of taking it from the pool"
    group.add_argument("--no-resource-pool", action="store_true", help=text)


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    text = "directory for the results and plots (default: %(default)s)"
    group.add_argument("--output-dir", default="benchmark_results", metavar="DIR", help=text)
    text = "benchmark database (default: BENCHMARK_DB_PATH, else hfaccel.duckdb in the working directory)"
    group.add_argument("--db-path", metavar="FILE", help=text)
    group.add_argument("--no-db-store", action="store_true", help="do not write to the database")
    group.add_argument("--no-plots", action="store_true", help="draw no plots")
    text = "draw the measurements of the database and measure nothing"
    group.add_argument("--visualize-from-db", action="store_true", help=text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
