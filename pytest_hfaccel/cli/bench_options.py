"""The arguments of `hfaccel bench`."""

from __future__ import annotations

import argparse

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
    group = parser.add_argument_group("what is measured")
    group.add_argument("--models-set", choices=_SETS, default="small", help="which models (default: %(default)s)")
    text = "for the set custom: names, wildcards, directories, hub ids, or JSON files that list them"
    group.add_argument("--custom-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "of the set, only these: names or wildcards"
    group.add_argument("--specific-models", nargs="+", default=[], metavar="MODEL", help=text)
    text = "devices or kinds of device (default: all that are here)"
    group.add_argument("--hardware", nargs="+", default=[], metavar="DEVICE", help=text)
    text = "precisions (default: %(default)s)"
    group.add_argument("--dtypes", nargs="+", default=["fp32"], metavar="DTYPE", help=text)
    text = "batch sizes (default: 1 4 8)"
    group.add_argument("--batch-sizes", nargs="+", type=_count, default=[1, 4, 8], metavar="N", help=text)
    text = "tokens per sample, for models with text (default: 128)"
    group.add_argument("--seq-lengths", nargs="+", type=_count, default=[128], metavar="N", help=text)
    text = "auto: pretrained where they are on this machine, else random ones of the real dimensions, which are as fast"
    group.add_argument("--weights", choices=_WEIGHTS, default="auto", help=text)
    only = group.add_mutually_exclusive_group()
    only.add_argument("--verify-only", action="store_true", help="only verify that the results are right")
    only.add_argument("--benchmark-only", action="store_true", help="measure without verifying first")


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is measured")
    text = "fix the runs before the timed ones (default: until they are stable; without N: %(const)s)"
    group.add_argument("--warmup", nargs="?", type=_count, const=_WARM_UP, metavar="N", help=text)
    text = "fix the timed runs (default: until the median is known well enough; without N: %(const)s)"
    group.add_argument("--iterations", nargs="?", type=_count, const=_ITERATIONS, metavar="N", help=text)
    text = "how well the median must be known: half its 95%% interval as a share (default: %(default)s)"
    group.add_argument("--relative-error", type=float, default=0.02, metavar="X", help=text)
    text = "most seconds of timed runs per point (default: %(default)s)"
    group.add_argument("--max-seconds", type=float, default=3.0, metavar="S", help=text)
    text = "CPU threads (default: the cores this process may use)"
    group.add_argument("--threads", type=_count, metavar="N", help=text)
    text = "seconds for preparing a cell, and for each point (default: %(default)s)"
    group.add_argument("--timeout", type=float, default=600.0, metavar="S", help=text)
    text = "measure in this process: memory is less exact, and a crash ends everything"
    group.add_argument("--in-process", action="store_true", help=text)
    text = "with --in-process: load each cell's model for itself instead of taking it from the pool"
    group.add_argument("--no-resource-pool", action="store_true", help=text)


def _add_where(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where it goes")
    text = "directory for the results and plots (default: %(default)s)"
    group.add_argument("--output-dir", default="benchmark_results", metavar="DIR", help=text)
    text = "benchmark database (default: BENCHMARK_DB_PATH, else hfaccel.duckdb in the working directory)"
    group.add_argument("--db-path", metavar="FILE", help=text)
    group.add_argument("--no-db-store", action="store_true", help="do not write to the database")
    group.add_argument("--no-plots", action="store_true", help="draw nothing")
    text = "measure nothing: draw what the database holds"
    group.add_argument("--visualize-from-db", action="store_true", help=text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
