"""`hfaccel compare`: what changed from one run to another, or from the history in the database to a run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import write_file
from pytest_hfaccel.core.errors import HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.comparison import Comparison

_USAGE = 2
_FAIL_ON = "verdicts,drift,speed,memory"


def add_parser(commands: Any) -> None:
    """Add `compare` to the parsers of `hfaccel`."""
    parser = commands.add_parser(
        "compare",
        help="compare a run with an earlier one, or with the database",
        description="Compare two runs, or a run with what the benchmark database knows of earlier ones: verdicts, "
        "distances from the reference, speed (rank test and limits that the noise of the runs sets) and memory.",
        epilog="Exit code: 0 when nothing that counts is worse, 1 when something is, 2 for a usage error.",
    )
    text = "a run's id or number, its folder, a journal, a directory of reports, or a benchmark database (*.duckdb)"
    parser.add_argument("baseline", metavar="A", help=f"what is compared with: {text}")
    text = "the run that is judged, named in the same ways, but not a database (default: the latest run of --reports)"
    parser.add_argument("run_", metavar="B", nargs="?", default="latest", help=text)
    text = "directory of reports in which ids and numbers are looked up (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    text = "what makes the exit code 1: verdicts, missing, drift, speed, memory, or none (default: %(default)s)"
    parser.add_argument("--fail-on", default=_FAIL_ON, metavar="KINDS", help=text)
    text = "least change of speed that counts, as a share of the time (default: %(default)s)"
    parser.add_argument("--least-change", type=float, default=0.05, metavar="X", help=text)
    text = "text for the terminal, markdown for a pull request's comment, or json (default: %(default)s)"
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text", help=text)
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    text = "file to write it to; the terminal then has the text"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.comparison import markdown_of, text_of

    try:
        counted = _kinds(arguments.fail_on)
        comparison = _read(arguments)
        text = text_of(comparison, counted)
        shown = text
        if arguments.format == "markdown":
            shown = markdown_of(comparison, counted)
        elif arguments.format == "json":
            shown = json.dumps(comparison.to_json(counted), indent=2, allow_nan=False)
        if arguments.output:
            write_file(arguments.output, f"{shown}\n", "--output")
    except HfAccelError as error:
        print(f"hfaccel compare: {error}", file=sys.stderr)
        return _USAGE
    print(text if arguments.output else shown)
    return int(bool(comparison.worse(counted)))


def _kinds(text: str) -> tuple[str, ...]:
    from pytest_hfaccel.comparison import KINDS
    from pytest_hfaccel.core.errors import ConfigError

    kinds = tuple(part.strip() for part in text.split(","))
    if kinds == ("none",):
        return ()
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--fail-on: {kind!r} is not allowed. Allowed: {', '.join(KINDS)}, or none alone.")
    return kinds


def _read(arguments: argparse.Namespace) -> Comparison:
    from pytest_hfaccel.comparison import Limits, compare_runs, find_side, read_side
    from pytest_hfaccel.core.errors import ConfigError

    if not 0.0 < arguments.least_change < 1.0:
        raise ConfigError(f"--least-change: {arguments.least_change:g} is not allowed. Allowed: between 0 and 1.")
    run = read_side(arguments.run_, arguments.reports, option="B")
    if run.is_history:
        raise ConfigError(
            f"{arguments.run_}: a database cannot be the run that is judged.",
            hint="Name it first: hfaccel compare hfaccel.duckdb RUN.",
        )
    sides = [(arguments.baseline, "A"), (arguments.run_, "B")]
    one, other = (find_side(text, arguments.reports, option).resolve() for text, option in sides)
    if one == other:
        raise ConfigError(
            f"A={arguments.baseline} and B={arguments.run_} are the same run: {run.id}.",
            hint="`hfaccel runs` lists the earlier ones.",
        )
    began = run.header.get("run", {}).get("started", "")
    baseline = read_side(arguments.baseline, arguments.reports, option="A", before=began)
    least = arguments.least_change
    return compare_runs(baseline, run, Limits(least_change=least, alone=max(least, Limits().alone)))
