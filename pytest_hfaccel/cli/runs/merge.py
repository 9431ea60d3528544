"""`hfaccel merge`: the journals of many jobs become one run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError, HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.distributed.merge import MergedRun

_REFUSED = 3


def add_parser(commands: Any) -> None:
    """Add `merge` to the parsers of `hfaccel`."""
    parser = commands.add_parser(
        "merge",
        help="join the journals of many jobs into one run",
        description="Join the journals of many jobs into one run with all reports. Each shard of a plan must be "
        "there once, with all its cells; runs without a plan must be finished.",
        epilog="Exit code: 0 when the merged run passed, 1 when it did not, 2 for a usage error, 3 when the runs are "
        "not merged because something is missing, doubled, mismatched or in conflict.",
    )
    text = "journals, folders of runs, directories of reports, or directories of these"
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR", help=text)
    text = "the plan that was run; cells that are missing are then named"
    parser.add_argument("--plan", type=Path, metavar="FILE", help=text)
    text = "merge although something is missing; the reports say what, and the run has not passed"
    parser.add_argument("--partial", action="store_true", help=text)
    text = "where runs disagree about a cell, take the worst verdict and say so, instead of refusing to merge"
    parser.add_argument("--keep-worst", action="store_true", help=text)
    text = "directory of reports that the merged run is added to (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    text = "Markdown file that a summary is appended to, such as $GITHUB_STEP_SUMMARY"
    parser.add_argument("--markdown", type=Path, metavar="FILE", help=text)
    text = "file of pytest-split's format that the seconds of the tests are added to, such as .test_durations"
    parser.add_argument("--durations", type=Path, metavar="FILE", help=text)
    text = "benchmark database that the runs are added to, each with its own machine"
    parser.add_argument("--database", type=Path, metavar="FILE", help=text)
    parser.set_defaults(run=_merge)


def _merge(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.distributed.durations import write_split_file
    from pytest_hfaccel.distributed.merge import merge_runs
    from pytest_hfaccel.distributed.plan import read_plan
    from pytest_hfaccel.distributed.summary_page import summary_page

    try:
        if arguments.database:
            from pytest_hfaccel.history.connection import require_database

            require_database(arguments.database, f"--database {arguments.database}", "leave --database out")
        plan = read_plan(arguments.plan) if arguments.plan else None
        run = merge_runs(arguments.runs, plan, partial=arguments.partial, keep_worst=arguments.keep_worst)
        command = " ".join(["hfaccel merge", *map(str, arguments.runs)])
        directory = run.write(arguments.reports, command)
        if arguments.durations:
            tests = {test: taken for of_cell in run.durations.values() for test, taken in of_cell.items()}
            write_split_file(arguments.durations, tests)
    except HfAccelError as error:
        print(f"hfaccel merge: {error}", file=sys.stderr)
        if arguments.markdown:
            lines = [f"    {line}" for line in str(error).splitlines()]
            _append(arguments.markdown, "\n".join(["## Not merged", "", *lines, ""]))
        return _REFUSED
    if arguments.markdown:
        _append(arguments.markdown, summary_page(run, f"Run {directory.name}"))
    if arguments.database:
        try:
            _write_database(arguments.database, run)
        except HfAccelError as error:  # the merged run stands
            print(f"hfaccel merge: {error}", file=sys.stderr)
            return _REFUSED
    for heading, lines in (("", run.notes), ("partial: ", run.missing), ("conflict: ", run.conflicts)):
        for line in lines:
            print(f"hfaccel merge: {heading}{line}", file=sys.stderr)
    verdict = "passed" if run.is_passed else "not passed"
    print(f"{directory}: {len(run.results)} cells of {len(run.header['merged'])} runs, {verdict}")
    return 0 if run.is_passed else 1


def _write_database(path: Path, run: MergedRun) -> None:
    """Write each run that has records, with the machine and the versions that it had."""
    from dataclasses import replace

    from pytest_hfaccel.history import BenchmarkDatabase
    from pytest_hfaccel.history.recording import make_record

    database = BenchmarkDatabase(path)
    for header, cells in run.sources:
        if cells:
            record = replace(make_record(header, test_name="pytest", cells=cells), versions=header["versions"])
            run_id = database.write_run(record)
            measured = f"{len(record.measurements)} measurements, {len(record.cells)} cells"
            print(f"database: {path} (run {run_id}: {measured})")


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--markdown: {path} cannot be written: {error.strerror}.") from error
