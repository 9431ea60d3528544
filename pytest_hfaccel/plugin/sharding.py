"""One shard of a plan: pytest takes the plan's arguments, compares what it selects with it, and runs the shard's cells.

`hfaccel plan` loads this module as a plugin as well (`-p pytest_hfaccel.plugin.sharding`), in a process that collects
and writes what it has selected to the file that `HFACCEL_SELECTION_FILE` names.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import Cell, Weights
from pytest_hfaccel.distributed.plan import ShardPlan, read_plan, shard_number
from pytest_hfaccel.distributed.selection import SelectedCell, Selection, hash_of_names
from pytest_hfaccel.engine.cell_run import identity
from pytest_hfaccel.engine.outcome_key import hash_of_entry, options_that_decide
from pytest_hfaccel.plugin.state import CELL_TEST, OPTIONS, SHARD, SHARD_PROBLEM, session_of
from pytest_hfaccel.reporting.run_facts import installed_versions

if TYPE_CHECKING:
    from pytest_hfaccel.core.config import RunConfig

FILE = "HFACCEL_SELECTION_FILE"


class Shard:
    """The shard that a run is to run.

    Args:
        config: What the user asked for.

    Raises:
        ConfigError: The plan cannot be read, or has no such shard.
    """

    def __init__(self, config: RunConfig) -> None:
        if not (config.plan and config.shard):
            missing, other = ("--hf-shard", "--hf-plan") if config.plan else ("--hf-plan", "--hf-shard")
            raise ConfigError(
                f"{config.source_of(other.removeprefix('--hf-'))} needs {missing}.",
                hint="One shard of a plan: pytest --hf-plan plan.json --hf-shard 1/8.",
            )
        self.path = Path(config.plan)
        self.plan: ShardPlan = read_plan(self.path)
        self.number = shard_number(config.shard, self.plan)
        self.cells = {cell.key for cell in self.plan.shards[self.number - 1]}

    @property
    def facts(self) -> dict[str, Any]:
        """What the header of the run says: `fingerprint`, `shard`, `shards`, `cells`."""
        count = len(self.plan.shards)
        return {
            "fingerprint": self.plan.fingerprint,
            "shard": self.number,
            "shards": count,
            "cells": len(self.cells),
            "seconds": round(self.plan.seconds[self.number - 1], 3),
        }

    def __str__(self) -> str:
        """Describe it for the header."""
        facts = self.facts
        cells = f"{facts['cells']} of {len(self.plan.cells)} cells"
        return f"shard {facts['shard']}/{facts['shards']} of plan {facts['fingerprint']}: {cells}"

    def refusal(self, selection: Selection) -> str:
        """Say why this run is not the one that was planned; empty where it is."""
        differences = self.plan.differences(selection)
        if not differences:
            return ""
        lines = [f"--hf-plan {self.path}: this is not the run that was planned (plan {self.plan.fingerprint}):"]
        lines += [f"  {difference}" for difference in differences]
        planned = " ".join(self.plan.arguments)
        lines.append(f"The plan was made for: pytest {planned}".rstrip())
        lines.append("Run it with these arguments and versions, or make a new plan with `hfaccel plan`.")
        return "\n".join(lines)


def shard_of(config: pytest.Config) -> Shard | None:
    """Return the shard of a run; `None` for one without a plan.

    Raises:
        ConfigError: The plan cannot be read, or has no such shard.
    """
    asked = config.stash[OPTIONS]
    if SHARD not in config.stash:
        config.stash[SHARD] = Shard(asked) if asked.plan or asked.shard else None
    return config.stash[SHARD]


def add_planned_arguments(config: pytest.Config, parser: pytest.Parser, arguments: list[str]) -> None:
    """Put the arguments that a plan was made for before those of the command line, unless they are there."""
    from copy import copy

    known = parser.parse_known_args(arguments, namespace=copy(config.option))
    path = getattr(known, "hfaccel_plan", None) or os.environ.get("HFACCEL_PLAN")
    if not path:
        return
    try:
        planned = read_plan(Path(path)).arguments
    except HfAccelError:
        return  # refused when the session starts
    if arguments[: len(planned)] != planned:
        arguments[:0] = planned


def select(config: pytest.Config, items: list[pytest.Item]) -> Selection:
    """Describe the tests that are selected."""
    session = session_of(config)
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    selection = Selection(versions=installed_versions(), options=options_that_decide(session.config))
    checks: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    cells = {}
    for item in items:
        test = item.stash.get(CELL_TEST, None)
        if test is None:
            selection.other_tests.append(item.nodeid)
            continue
        key = session.module_of(item.cls), test.cell.id  # type: ignore[attr-defined]
        cells[key] = test.cell
        names[key].append(f"{test.check} {test.point or ''}")
        checks[key][item.nodeid] = test.check
    for key, cell in cells.items():
        model = cell.model
        selection.entries.setdefault(model.name, hash_of_entry(model))
        selection.cells.append(
            SelectedCell(
                *key,
                model.name,
                model.architecture,
                cell.device.id,
                checks=hash_of_names(names[key]),
                tests=tuple(checks[key]),
                names=checks[key],
                facts=identity(cell, key[0]),
                memory_bytes=_memory_bytes(cell),
            )
        )
    return selection


def _memory_bytes(cell: Cell) -> int:
    """Return what a model's weights take: as they are loaded, in fp32 on the way, and in fp64 as the reference."""
    if cell.weights.kind == Weights.TINY or not cell.model.parameters:
        return 0
    return cell.model.parameters * (4 + 4 + 8)


def _describe_run(config: pytest.Config) -> dict[str, Any]:
    """Describe the run that would start here; see `Selection.run`."""
    from pytest_hfaccel.plugin.reporting import root_of, run_header

    asked = config.stash[OPTIONS]
    refused = [
        flag
        for flag, value in (
            ("--hf-plan", asked.plan),
            ("--hf-shard", asked.shard),
            ("--hf-resume", asked.resume),
            ("--hf-baseline", asked.baseline),  # `hfaccel compare` does it afterwards
            ("--maxfail (-x)", config.getoption("maxfail", 0)),
            ("--pdb", config.getoption("usepdb", False)),
        )
        if value
    ]
    return {
        "header": run_header(config),
        "root": root_of(config),
        "reports": str(asked.reports_dir.absolute()),
        "mode": asked.reports_mode,
        "keep_runs": asked.keep_runs,
        "database": str(asked.database_path.absolute()) if asked.database_path else "",
        "refused": refused[0] if refused else "",
    }


def keep_shard(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of other shards; those of no model class belong to the first one.

    What speaks against the plan is left in the stash: a worker has no other way to tell its controller.
    """
    shard = shard_of(config)
    if shard is None:
        return
    if problem := shard.refusal(select(config, items)):
        config.stash[SHARD_PROBLEM] = problem
        return
    session = session_of(config)

    def is_kept(item: pytest.Item) -> bool:
        test = item.stash.get(CELL_TEST, None)
        if test is None:
            return shard.number == 1
        return (session.module_of(item.cls), test.cell.id) in shard.cells  # type: ignore[attr-defined]

    kept = {id(item) for item in items if is_kept(item)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write what is selected, for `hfaccel plan`."""
    if path := os.environ.get(FILE):
        selection = select(session.config, session.items)
        selection.run = _describe_run(session.config)
        replace_file(Path(path), json.dumps(selection.to_json()))
