"""`hfaccel plan`, `ci-matrix` and `merge`: one run on many machines."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import positive_number, whole_number
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.reporting.tables import format_table

if TYPE_CHECKING:
    from pytest_hfaccel.distributed.plan import PlannedCell, ShardPlan
    from pytest_hfaccel.distributed.selection import Selection

_FORMATS = ("github", "buildkite", "slurm")


def add_parser(commands: Any) -> None:
    """Add `plan` and `ci-matrix` to the parsers of `hfaccel`."""
    description = (
        "Collect what pytest would run with the arguments after `--`, and distribute the cells over shards that take "
        "equally long, by recorded durations; a model's cells stay together, unless it takes longer than an even "
        "share. The plan is written to a file. Each job runs its shard with `pytest --hf-plan FILE --hf-shard k/N`, "
        "and `hfaccel merge` joins the results."
    )
    for name, text in (("plan", "split a run over many machines"), ("ci-matrix", "`plan` with --format github")):
        parser = commands.add_parser(
            name, help=text, description=description, usage=f"hfaccel {name} [options] -- [ARGUMENTS OF PYTEST]"
        )
        number = parser.add_mutually_exclusive_group(required=True)
        number.add_argument("--shards", type=whole_number, default=0, metavar="N", help="how many shards")
        text = "as few shards as end within so many minutes"
        number.add_argument("--minutes", type=positive_number, default=0.0, metavar="M", help=text)
        text = "what to print for a CI system: github (a line for $GITHUB_OUTPUT), buildkite (a pipeline) or slurm (a "
        text += "script for sbatch); by default a table for people"
        default = "github" if name == "ci-matrix" else None
        parser.add_argument("--format", choices=_FORMATS, default=default, help=text)
        parser.add_argument(
            "--output", type=Path, default=Path("plan.json"), metavar="FILE", help="the plan (default: %(default)s)"
        )
        text = "recorded durations: a file of pytest-split's format, journals, run folders, or directories of reports; "
        text += "may be repeated (default: .test_durations, if it is there)"
        parser.add_argument("--durations", type=Path, action="append", metavar="PATH", help=text)
        text = "accept machines that have other versions of the packages than this one"
        parser.add_argument("--any-versions", action="store_true", help=text)
        parser.add_argument("arguments", nargs="*", metavar="ARGUMENTS", help="arguments of pytest, after `--`")
        parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.distributed.ci_formats import FORMATS
    from pytest_hfaccel.distributed.durations import DURATIONS, read_durations
    from pytest_hfaccel.distributed.plan import make_plan, write_plan

    paths = arguments.durations
    if paths is None:
        paths = [path for path in (Path(DURATIONS),) if path.exists()]
    durations = read_durations(paths)
    selection = collect(arguments.arguments)
    if arguments.any_versions:
        selection.versions = {}
    plan = make_plan(selection, durations, arguments.arguments, shards=arguments.shards, minutes=arguments.minutes)
    text = FORMATS[arguments.format](plan, str(arguments.output)) if arguments.format else ""
    write_plan(arguments.output, plan)
    if text:
        print(text, end="")
    _describe(plan, arguments.output, sys.stderr if text else sys.stdout)
    return 0


def collect(
    arguments: Sequence[str], command: str = "hfaccel plan --shards 8", environment: Mapping[str, str] | None = None
) -> Selection:
    """Return what pytest selects with some arguments.

    Args:
        arguments: The arguments.
        command: How the command that needs them is called, for the message.
        environment: Further environment variables.

    Raises:
        ConfigError: It selects nothing, or refuses the arguments.
    """
    import json

    from pytest_hfaccel.distributed.selection import Selection

    with TemporaryDirectory(prefix="hfaccel-") as directory:
        file = Path(directory) / "selection.json"
        plugin = "pytest_hfaccel.plugin.sharding"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", plugin, *arguments, "--collect-only", "-q"],
            env={**os.environ, **(environment or {}), "HFACCEL_SELECTION_FILE": str(file)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode in (0, 5) and file.exists():
            return Selection.from_json(json.loads(file.read_text(encoding="utf-8")))
    said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
    raise ConfigError(
        f"pytest cannot collect what is to be run (exit code {done.returncode}):\n{said}",
        hint=f"Give the arguments of pytest after `--`: {command} -- model_classes --all-models",
    )


def _describe(plan: ShardPlan, file: Path, stream: Any) -> None:
    from pytest_hfaccel.distributed.plan import estimated, format_seconds

    cells, guessed = plan.cells, estimated(plan)
    rows = [("shard", "models", "cells", "planned")]
    for number, (shard, seconds) in enumerate(zip(plan.shards, plan.seconds, strict=True), 1):
        models = len({cell.model for cell in shard})
        rows.append((f"{number}/{len(plan.shards)}", str(models), str(len(shard)), format_seconds(seconds)))
    print("\n".join(format_table(rows)), file=stream)
    print(plan.balance(), file=stream)
    if guessed:
        print(f"{len(guessed)} of {len(cells)} cells have no recorded duration:", file=stream)
        for source in sorted({cell.source for cell in guessed}):
            number = sum(cell.source == source for cell in guessed)
            print(f"    {number} {source} ({format_seconds(_seconds(guessed, source))} in all)", file=stream)
    print(
        f"{file}: plan {plan.fingerprint}. A shard: pytest --hf-plan {file} --hf-shard 1/{len(plan.shards)}",
        file=stream,
    )


def _seconds(cells: Sequence[PlannedCell], source: str) -> float:
    return sum(cell.seconds for cell in cells if cell.source == source)
