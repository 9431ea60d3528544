"""`hfaccel coverage`: every class, device and check of some runs on one page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's subparsers."""
    parser = commands.add_parser(
        "coverage",
        help="write what ran on which class and device, and what failed, as a page and as JSON",
        description="Read the journals of runs (of a sweep over all classes, say), or the JSON of an earlier coverage "
        "to add to, and write one page: how each class ended on each device, check by check, and every failure "
        "with its cause and the command that repeats it.",
    )
    parser.add_argument(
        "journals", nargs="*", type=Path, default=[Path("reports/journal.jsonl")], help="default: %(default)s"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="Markdown file to write (default: print it)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file to write")
    parser.add_argument("--against", type=Path, metavar="FILE", help="JSON of an earlier coverage to compare with")
    parser.add_argument("--title", default="Coverage", help="heading of the page (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and the JSON.

    Returns:
        0.

    Raises:
        ConfigError: A journal cannot be read, or a file cannot be written.
    """
    from pytest_hfaccel.reporting.support_matrix import coverage_json, read_coverage, read_coverage_json
    from pytest_hfaccel.reporting.support_page import coverage_page, difference_section

    before = read_coverage_json(arguments.against) if arguments.against else None
    coverage = read_coverage(arguments.journals)
    data = coverage_json(coverage)
    if arguments.json:
        _write(arguments.json, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    further = difference_section(before, data) if before is not None else []
    page = coverage_page(coverage, arguments.title, further)
    if arguments.page:
        _write(arguments.page, page)
        print(f"{arguments.page}: {len(coverage.cells)} cells of {len(coverage.runs)} runs")
    else:
        print(page, end="")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
