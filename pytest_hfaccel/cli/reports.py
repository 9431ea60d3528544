"""`hfaccel runs` and `support`: the runs in a reports directory, and the support matrix from their journals."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

_COMMAND_SHOWN = 80


def add_parser(commands: Any) -> None:
    """Add `support` and `runs` to the parsers of `hfaccel`."""
    _add_support(commands)
    _add_runs(commands)


def _add_runs(commands: Any) -> None:
    parser = commands.add_parser(
        "runs",
        help="list the runs that have left reports, and how they ended",
        description="List the runs of a directory of reports, oldest first: id, start, cells by status, how the run "
        "ended, and its command. A run that was killed is marked, with the test it was running.",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="directory of reports (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_runs)


def _runs(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.reporting.runs import list_runs

    runs = list_runs(arguments.reports)
    if arguments.json:
        print(json.dumps([{**asdict(one), "directory": str(one.directory)} for one in runs], indent=2))
        return 0
    if not runs:
        print(f"{arguments.reports}: no runs")
    for one in runs:
        cells = ", ".join(f"{number} {status}" for status, number in one.cells.items()) or "none"
        command = one.command if len(one.command) <= _COMMAND_SHOWN else f"{one.command[: _COMMAND_SHOWN - 3]}..."
        print(f"{one.id}  {one.started or '?'}  {one.status}  cells: {cells}  {command}")
        if one.last_test:
            print(f"    while running {one.last_test}")
        for problem in one.problems:
            print(f"    {problem}")
    return 0


def _add_support(commands: Any) -> None:
    parser = commands.add_parser(
        "support",
        help="write the support matrix: how each class ended on each device, and why",
        description="Read the journals of runs (of a sweep over all classes, say), or support matrices to add to, and "
        "write one page: how each class ended on each device, check by check, and every failure with its cause and "
        "the command that repeats it.",
    )
    _add_support_options(parser)
    parser.set_defaults(run=_support)
    # The old name: without a help text it is not listed.
    old = commands.add_parser("coverage", description="The old name of `hfaccel support`.")
    _add_support_options(old)
    old.set_defaults(run=_coverage)


def _add_support_options(parser: argparse.ArgumentParser) -> None:
    text = "journals, or JSON files of support matrices (default: reports/journal.jsonl)"
    parser.add_argument("journals", nargs="*", type=Path, default=[Path("reports/journal.jsonl")], help=text)
    parser.add_argument("--page", type=Path, metavar="FILE", help="Markdown file to write (default: print it)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file to write, compressed if it ends in .xz")
    parser.add_argument("--against", type=Path, metavar="FILE", help="JSON file of a support matrix to compare with")
    parser.add_argument("--title", default="Support matrix", help="heading of the page (default: %(default)s)")


def _coverage(arguments: argparse.Namespace) -> int:
    print("hfaccel: `hfaccel coverage` is now `hfaccel support`; the old name will go.", file=sys.stderr)
    return _support(arguments)


def _support(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.files import replace_file
    from pytest_hfaccel.reporting.support_matrix import (
        coverage_json,
        read_coverage,
        read_coverage_json,
        write_coverage_json,
    )
    from pytest_hfaccel.reporting.support_page import coverage_page, difference_section

    before = read_coverage_json(arguments.against) if arguments.against else None
    coverage = read_coverage(arguments.journals)
    data = coverage_json(coverage)
    page = coverage_page(coverage, arguments.title, difference_section(before, data) if before is not None else [])
    try:
        if arguments.json:
            write_coverage_json(arguments.json, data)
        if arguments.page:
            replace_file(arguments.page, page)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    if arguments.page:
        print(f"{arguments.page}: {len(coverage.cells)} cells of {len(coverage.runs)} runs")
    else:
        print(page, end="")
    return 0
