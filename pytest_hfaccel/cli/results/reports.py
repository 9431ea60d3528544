"""`hfaccel runs`, `html`, `site` and `support`: runs, the page of one, and what many say of each class."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.errors import ConfigError, shorten
from pytest_hfaccel.core.results import Ended

LATEST = "latest"


def add_parser(commands: Any) -> None:
    """Add `site`, `support`, `runs` and `html` to the parsers of `hfaccel`."""
    site = commands.add_parser(
        "site",
        help="write the support site: can a class be used on a device, with which release of transformers",
        description="Read runs and support matrices, and write a site to search by class or hub id. For each device, "
        "precision and release of transformers it shows what works, what fails and which project is at fault, with the "
        "checks, the numbers, the run and its date, and what changed between releases. It needs no network: open "
        "index.html, or put the directory on any web server.",
    )
    text = "journals, folders of runs, directories of reports (all their runs), or support matrices (default: reports)"
    site.add_argument("runs", nargs="*", type=Path, default=[Path("reports")], metavar="RUN", help=text)
    text = "directory of the site (default: %(default)s)"
    site.add_argument("--output", type=Path, default=Path("site"), metavar="DIR", help=text)
    site.set_defaults(run=_site)

    support = commands.add_parser(
        "support",
        help="write the support matrix: how each class ended on each device, as JSON and as totals",
        description="Read the journals of runs, such as a sweep over all classes, and existing support matrices, and "
        "write one matrix as JSON: how each class ended on each device, check by check, and every failure with its "
        "cause and the command that repeats it. Print the totals. To look things up, use `hfaccel site`.",
    )
    # The old name: without a help text it is not listed.
    old = commands.add_parser("coverage", description="The old name of `hfaccel support`.")
    for parser, run in ((support, _support), (old, _coverage)):
        text = "journals, or JSON files of support matrices (default: reports/journal.jsonl)"
        parser.add_argument("journals", nargs="*", type=Path, default=[Path("reports/journal.jsonl")], help=text)
        parser.add_argument(
            "--page", type=Path, metavar="FILE", help="Markdown file to write the totals to (default: print them)"
        )
        text = "JSON file to write, compressed if its name ends in .xz"
        parser.add_argument("--json", type=Path, metavar="FILE", help=text)
        text = "no longer used: `hfaccel site` shows what changed between releases"
        parser.add_argument("--against", type=Path, metavar="FILE", help=text)
        parser.add_argument("--title", default="Support matrix", help="heading of the totals (default: %(default)s)")
        parser.set_defaults(run=run)

    parser = commands.add_parser(
        "runs",
        help="list earlier runs and how they ended",
        description="List the runs of a directory of reports, oldest first: id, start, how the run ended, cells by "
        "status, and its command. For a run that was killed, also the test that was running.",
    )
    text = "directory of reports (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_runs)

    parser = commands.add_parser(
        "html",
        help="write the page of a run: its matrix, problems, changes and charts in one HTML file",
        description="Write the page of a run from its journal: one HTML file that needs no network. Every run "
        "writes its page at its end; this command also compares it with all earlier runs, and works for a run that was "
        "killed.",
    )
    text = "the run's id, number or folder, or `latest` (default: %(default)s)"
    parser.add_argument("which", nargs="?", default=LATEST, metavar="RUN", help=text)
    text = "directory of reports (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    text = "file to write (default: index.html in the run's folder)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    parser.set_defaults(run=_html)


def _runs(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.reporting.runs import list_runs

    runs = list_runs(arguments.reports)
    if arguments.json:
        print_json([{**asdict(run), "directory": str(run.directory)} for run in runs])
        return 0
    if not runs:
        print(f"{arguments.reports}: no runs")
    for run in runs:
        cells = ", ".join(f"{number} {status}" for status, number in run.cells.items()) or "none"
        command = shorten(run.command, 80)
        print(f"{run.id}  {run.started or '?'}  {run.status}  cells: {cells}  {command}")
        for line in ([f"while running {run.last_test}"] if run.last_test else []) + run.problems:
            print(f"    {line}")
    return 0


def _html(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.reporting.journal import JOURNAL, read_journal
    from pytest_hfaccel.reporting.reports import COMPARISON
    from pytest_hfaccel.reporting.runs import PAGE, find_run, latest_run, run_folders, write_page

    reports: Path = arguments.reports
    name: str = arguments.which
    folder = latest_run(reports) if name == LATEST else find_run(reports, name, "RUN")
    if folder is None:
        raise ConfigError(f"{reports}: there is no run.", hint="--reports names another directory of reports.")
    contents = read_journal(folder / JOURNAL)
    for problem in contents.problems:
        print(f"hfaccel: {problem}", file=sys.stderr)
    folders = run_folders(folder.parent.parent)
    earlier = folders[: folders.index(folder)] if folder in folders else []
    header = {**contents.header, **contents.header.get("run", {}), "finished": contents.end.get("finished")}
    header = {name: value for name, value in header.items() if name not in ("schema", "schema_version", "run")}
    ended = contents.end.get("ended", Ended.RUNNING)
    page = arguments.output or folder / PAGE
    mode = None if arguments.output else (folder / JOURNAL).stat().st_mode & 0o777
    comparison = _comparison_of(folder / COMPARISON)
    write_page(page, contents.cells, header, ended, earlier, limit=None, comparison=comparison, mode=mode)
    print(f"{page}: {len(contents.cells)} cells of run {folder.name}, {len(earlier)} earlier runs")
    return 0


def _site(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.registry import load_registry
    from pytest_hfaccel.reporting.evidence import read_evidence, write_site
    from pytest_hfaccel.upstream.transformers import documented_checkpoints

    evidence = read_evidence(arguments.runs)
    hub_ids = documented_checkpoints()
    for spec in load_registry().specs:
        if spec.hub_id:
            hub_ids.setdefault(spec.architecture, []).append(spec.hub_id)
    page = write_site(arguments.output, evidence, hub_ids)
    classes = len({record.result.architecture for record in evidence.records})
    releases = ", ".join(evidence.releases)
    print(f"{page}: {classes} classes, {len(evidence.records)} results of {len(evidence.runs)} runs, {releases}")
    return 0


def _comparison_of(path: Path) -> dict[str, Any] | None:
    """Return what the run wrote of its comparison with a baseline; `None` if it had none."""
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"hfaccel: {path} cannot be read, the page is without it: {error}", file=sys.stderr)
        return None
    return found


def _coverage(arguments: argparse.Namespace) -> int:
    print("hfaccel: `hfaccel coverage` is now `hfaccel support`; the old name will go.", file=sys.stderr)
    return _support(arguments)


def _support(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.files import replace_file
    from pytest_hfaccel.reporting import support_matrix
    from pytest_hfaccel.reporting.evidence import read_evidence

    if arguments.against:
        print(
            f"hfaccel: --against is no longer used: `hfaccel site {arguments.against} ...` shows what changed "
            "between releases, `hfaccel compare` what changed between two runs.",
            file=sys.stderr,
        )
    coverage = read_evidence(arguments.journals).newest()
    page = support_matrix.totals_page(coverage, arguments.title)
    try:
        if arguments.json:
            support_matrix.write_coverage_json(arguments.json, support_matrix.coverage_json(coverage))
        if arguments.page:
            replace_file(arguments.page, page)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    if arguments.page:
        print(f"{arguments.page}: {len(coverage.cells)} cells of {len(coverage.runs)} runs")
    else:
        print(page, end="")
    return 0
