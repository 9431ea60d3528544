"""`--hf-explain SECONDS`: at the end of a run, whose doing its first failures are.

Each is explained by `hfaccel explain` in a process of its own, after the run has freed its models. A crash there, or
memory that runs out, changes no verdict.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.results import NOT_REACHED, Cause, CellResult, CheckOutcome, Status
from pytest_hfaccel.core.spec import CLASS_LEVEL
from pytest_hfaccel.plugin.state import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hfaccel.plugin.reporting import Reporters

MOST = 3
"""How many failures of a run are explained."""

_LEAST_SECONDS = 5.0
"""What is left of the time for another one to be begun; to import torch and transformers takes most of it."""

_EXPLAINED = frozenset({Status.FAILED, Status.ERROR})
_KNOWN = frozenset({Cause.PACKAGE, Cause.TINY_CHECKPOINT, Cause.TIME, Cause.NUMERICS})


def explain_failures(config: pytest.Config, reporters: Reporters) -> None:
    """Explain the first failures of a run that has come to its end, and put the answers into their records."""
    limit = config.stash[OPTIONS].explain_seconds
    folder = reporters.reports.directory
    if not limit or folder is None:
        return
    deadline = time.monotonic() + limit
    for result, outcome in _failures(reporters.stream.results):
        left = deadline - time.monotonic()
        if left < _LEAST_SECONDS:
            return
        answer = _explain(config, folder, result, left)
        reporters.stream.explain(result.key, outcome.name, answer)


def lines_of(results: Sequence[CellResult]) -> Iterator[str]:
    """Yield a line for each failure that was explained."""
    for result in results:
        for outcome in result.checks:
            if found := outcome.measures.get("explanation"):
                yield f"{result.cell} {outcome.name}: {found['cause'] or 'not explained'}: {found['because']}"
                if place := found.get("first_divergence"):
                    yield f"    {place}"


def _failures(results: Sequence[CellResult]) -> list[tuple[CellResult, CheckOutcome]]:
    """Return the failure of each cell that decides its status, of those whose cause is not known."""
    found = []
    for result in results:
        if result.device == CLASS_LEVEL.id or result.from_run:
            continue
        for outcome in result.checks:
            is_first = NOT_REACHED not in (outcome.reason or "")
            if outcome.status in _EXPLAINED and is_first and outcome.cause not in _KNOWN:
                found.append((result, outcome))
                break
    return found[:MOST]


def _explain(config: pytest.Config, folder: Path, result: CellResult, seconds: float) -> dict[str, Any]:
    """Return what the record says of it: `cause`, `because`, `first_divergence`, `experiments` by name."""
    where = ["--run", str(folder), "--reports", str(folder.parent.parent)]
    command = [sys.executable, "-m", "pytest_hfaccel", "explain", result.cell, *where, "--json", "--seconds"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    try:
        done = subprocess.run(
            [*command, f"{seconds:.0f}"],
            cwd=config.invocation_params.dir,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unexplained(f"it was stopped after {seconds:.0f} s")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr or done.stdout).strip().splitlines()
        said = last[-1] if last else "nothing"
        return _unexplained(f"hfaccel explain ended with {done.returncode} and said: {said}")
    verdict = answer.get("cause") or {"cause": "", "because": "the failure does not show again", "experiments": []}
    kept = ("outcome", "error", "allowed", "about")
    return {
        "cause": verdict["cause"],
        "because": verdict["because"],
        "first_divergence": next(iter(answer.get("divergence", ())), ""),
        "experiments": {each["name"]: {name: each[name] for name in kept} for each in verdict["experiments"]},
    }


def _unexplained(why: str) -> dict[str, Any]:
    return {"cause": "", "because": why, "first_divergence": "", "experiments": {}}
