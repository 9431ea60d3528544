"""`hfaccel runs`: the runs that have left reports."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

_COMMAND_SHOWN = 80


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's subparsers."""
    parser = commands.add_parser(
        "runs",
        help="list the runs that have left reports, and how they ended",
        description="List the runs of a directory of reports, oldest first: id, start, cells by status, how the run "
        "ended, and its command. A run that was killed is told, with the test it was running.",
    )
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the list.

    Returns:
        0.
    """
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
