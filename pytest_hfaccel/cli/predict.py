"""`hfaccel predict`: how fast a model will be on some hardware, in how much memory, and where to run it."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json, write_file
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.predict import HardwareModelPredictor

_PATIENCE_S = 1.5


def add_parser(commands: Any) -> None:
    """Add `predict` to the parsers of `hfaccel`."""
    text = (
        "Predict latency, throughput and memory of a model on hardware that is present or not, and recommend hardware."
    )
    parser = commands.add_parser("predict", help="predict the speed and memory of a model", description=text)
    _add_options(parser)
    parser.set_defaults(run=_run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    from pytest_hfaccel.classify.definitions import MODEL_FAMILIES
    from pytest_hfaccel.core.spec import DTYPES

    asked = parser.add_argument_group("model and hardware")
    asked.add_argument("name", nargs="?", metavar="MODEL", help="registered name, local directory or hub id")
    asked.add_argument("--model", metavar="MODEL", help="the same, as an option")
    asked.add_argument("--family", choices=sorted(MODEL_FAMILIES), help="family of the model (default: as classified)")
    asked.add_argument("--batch-size", type=int, default=None, metavar="N", help="samples (default: 1)")
    asked.add_argument("--seq-length", type=int, default=128, metavar="N", help="tokens per sample (default: 128)")
    text = "a forward pass or a training step (default: inference)"
    asked.add_argument("--mode", choices=("inference", "training"), default="inference", help=text)
    text = "precision (default: fp32); with --generate-matrix also several (default: fp32 fp16 int8)"
    asked.add_argument("--precision", nargs="+", choices=DTYPES, metavar="DTYPE", help=text)
    text = "a kind (cuda), a device (cuda:0) or a chip (cuda:h100-sxm); by default the devices of this machine"
    asked.add_argument("--hardware", nargs="+", metavar="NAME", help=text)
    asked.add_argument("--distributed", action="store_true", help="split the model over several devices")
    text = "with --distributed: how many devices (default: 1)"
    asked.add_argument("--gpu-count", type=int, default=1, metavar="N", help=text)

    known = parser.add_argument_group("data")
    known.add_argument("--benchmark-dir", metavar="DIR", help="directory with benchmark results")
    known.add_argument("--database", metavar="FILE", help="benchmark database to read; predictions are stored in it")
    text = "predict with the default config of a model's class where its own dimensions are not known"
    known.add_argument("--assume-default", action="store_true", help=text)
    known.add_argument("--config", metavar="FILE", help="configuration file (JSON or YAML)")

    actions = parser.add_argument_group("actions and output")
    actions.add_argument("--generate-matrix", action="store_true", help="predict many models on many platforms")
    actions.add_argument("--output-file", metavar="FILE", help="write the answer as JSON")
    actions.add_argument("--visualize", action="store_true", help="draw the matrix (or, with --accuracy, the errors)")
    actions.add_argument(
        "--output-dir",
        default="visualizations",
        metavar="DIR",
        help="directory for plots, or for the models of --train",
    )
    actions.add_argument("--detect-hardware", action="store_true", help="list the devices of this machine first")
    actions.add_argument("--accuracy", action="store_true", help="compare earlier predictions with what was measured")
    actions.add_argument("--train", action="store_true", help="train prediction models on the database's rows")
    actions.add_argument("--json", action="store_true", help="print JSON")
    actions.add_argument("--debug", action="store_true", help="show the source of each number")


def _run(arguments: argparse.Namespace) -> int:
    model = arguments.name or arguments.model
    if not (model or arguments.generate_matrix or arguments.detect_hardware or arguments.accuracy or arguments.train):
        raise ConfigError(
            "predict: name a model, or one of --generate-matrix, --detect-hardware, --accuracy, --train.",
            hint="For example: hfaccel predict bert-base-uncased --hardware cuda cpu --batch-size 8",
        )
    if arguments.debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    _check_places(arguments)
    if arguments.precision and len(arguments.precision) > 1 and not arguments.generate_matrix:
        raise ConfigError("--precision: several are for a matrix.", hint="Add --generate-matrix, or name one.")
    if arguments.train:
        return _train(arguments)
    if arguments.accuracy:
        return _accuracy(arguments)
    if arguments.detect_hardware:
        from pytest_hfaccel.cli.hardware import format_devices
        from pytest_hfaccel.hardware import probe_devices

        print(format_devices(probe_devices()), end="\n\n")
    if not (model or arguments.generate_matrix):
        return 0
    from pytest_hfaccel.predict import HardwareModelPredictor

    predictor = HardwareModelPredictor(
        arguments.benchmark_dir, arguments.database, arguments.config, assume_default=arguments.assume_default
    )
    answer = _matrix if arguments.generate_matrix else _recommend
    code = answer(predictor, arguments, model)
    for note in predictor.notes:
        print(f"hfaccel: {note}", file=sys.stderr)
    return code


def _check_places(arguments: argparse.Namespace) -> None:
    """Refuse places that do not exist: a typing mistake must not become a worse prediction."""
    for option in ("config", "benchmark_dir"):
        place = getattr(arguments, option)
        if place and not Path(place).expanduser().exists():
            raise ConfigError(f"--{option.replace('_', '-')}: {place}: there is no such file or directory.")


def _recommend(predictor: HardwareModelPredictor, arguments: argparse.Namespace, model: str) -> int:
    from pytest_hfaccel.predict.text import recommendation_text

    with _patience(f"working out what {model} does"):
        answer = predictor.predict_optimal_hardware(
            model,
            arguments.family,
            1 if arguments.batch_size is None else arguments.batch_size,
            arguments.seq_length,
            arguments.mode,
            (arguments.precision or ["fp32"])[0],
            arguments.hardware,
            arguments.distributed,
            arguments.gpu_count,
        )
    _write(answer, arguments.output_file)
    print_json(answer) if arguments.json else print(recommendation_text(answer, why=arguments.debug))
    return 0 if answer["primary_recommendation"] and _is_about_the_model([answer], arguments) else 1


def _is_about_the_model(answers: Iterable[Mapping[str, Any]], arguments: argparse.Namespace) -> bool:
    """Whether the numbers are those of the models that were named, or of others that stand in because it was asked."""
    return arguments.assume_default or all(answer["dimensions"] == "known" for answer in answers)


def _matrix(predictor: HardwareModelPredictor, arguments: argparse.Namespace, model: str | None) -> int:
    from pytest_hfaccel.cli.progress import StepProgress
    from pytest_hfaccel.predict.text import matrix_text

    entry = {"name": model, **({"family": arguments.family} if arguments.family else {})} if model else None
    with StepProgress(1, "models") as shown:
        matrix = predictor.create_hardware_prediction_matrix(
            [entry] if entry else None,
            None if arguments.batch_size is None else [arguments.batch_size],
            arguments.hardware,
            arguments.precision,
            arguments.mode,
            sequence_length=arguments.seq_length,
            progress=shown.begin_one_of,
        )
    _write(matrix, arguments.output_file)
    print_json(matrix) if arguments.json else print(matrix_text(matrix))
    if arguments.visualize:
        for file in predictor.visualize_matrix(matrix, arguments.output_dir):
            print(f"Wrote {file}", file=sys.stderr if arguments.json else sys.stdout)
    return 0 if _is_about_the_model(matrix["models"].values(), arguments) else 1


def _train(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.history.schema import default_database_path
    from pytest_hfaccel.predict import train_prediction_models

    place = arguments.database or arguments.benchmark_dir or default_database_path()
    print(f"hfaccel: training on {place}; models that are new are traced first", file=sys.stderr)
    own = None if arguments.output_dir == "visualizations" else arguments.output_dir
    models = train_prediction_models(place, own)
    for model in models:
        print(f"{model.name}: {model.rows} rows, {model.latency_error:.1%} mean error on held-out kinds of models")
    for reason in models.left_out:
        print(f"not trained: {reason}")
    return 0 if len(models) else 1


def _accuracy(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.history import BenchmarkDatabase
    from pytest_hfaccel.predict.text import accuracy_table, accuracy_text

    database = BenchmarkDatabase(arguments.database, create=False)
    pairs = database.accuracy()
    if pairs.empty:
        print(f"{database.path}: no prediction has been measured yet. Predict with --database, then measure the cell.")
        return 1
    summary = accuracy_table(pairs)
    _write(summary.to_dict("records"), arguments.output_file)
    print_json(summary.to_dict("records")) if arguments.json else print(accuracy_text(summary))
    if arguments.visualize:
        from pytest_hfaccel.plots import plot_accuracy

        for metric, unit in (("latency_ms", "ms"), ("memory_mb", "MiB")):
            rows = pairs[pairs["metric"] == metric]
            if not rows.empty:
                for file in plot_accuracy(rows, metric.partition("_")[0], unit, arguments.output_dir):
                    print(f"Wrote {file}")
    return 0


def _write(answer: Any, file: str | None) -> None:
    if file is not None:
        write_file(Path(file), json.dumps(answer, indent=2) + "\n", "--output-file")
        print(f"Wrote {file}", file=sys.stderr)


@contextmanager
def _patience(what: str) -> Iterator[None]:
    """Say what takes so long, if it does: a model's first trace takes seconds."""
    said = threading.Timer(_PATIENCE_S, lambda: print(f"hfaccel: {what} (kept for next time)", file=sys.stderr))
    said.daemon = True
    said.start()
    try:
        yield
    finally:
        said.cancel()
