"""`hfaccel bench`: verify models on the hardware that is here, measure them, keep and draw what was measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli.bench_options import add_options
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.campaign import Campaign, Run
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.spec import Cell, ModelSpec, WeightsChoice


def add_parser(commands: Any) -> None:
    """Add `bench` to the parsers of `hfaccel`."""
    text = "Verify models on devices, measure them in processes of their own, and keep the results."
    parser = commands.add_parser("bench", help="verify and measure models on devices", description=text)
    add_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.cli.bench_output import draw, record, visualize
    from pytest_hfaccel.cli.bench_progress import Progress

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
    from pytest_hfaccel.hardware.cpu_facts import read_cpu

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
    from pytest_hfaccel.core.spec import DTYPES, Device
    from pytest_hfaccel.engine.plan import expand_matrix
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.registry import load_registry

    unknown = [dtype for dtype in arguments.dtypes if dtype not in DTYPES]
    if unknown:
        raise ConfigError(f"--dtypes: {unknown[0]!r} is not a dtype. Allowed: {', '.join(DTYPES)}.")
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
