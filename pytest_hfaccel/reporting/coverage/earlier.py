"""The JSON of an earlier coverage, read again: to compare with, or to add the cells of further runs to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import NOT_REACHED, CellResult, CheckOutcome, Stage, Status

_MODULE = re.compile(r"test_hf_(\w+)\.py")


def read_coverage_json(path: Path) -> dict[str, Any]:
    """Read what `coverage_json` returned and somebody wrote.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as coverage: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != "pytest-hfaccel/coverage":
        raise ConfigError(f"{path} is no coverage.", hint="`hfaccel coverage JOURNAL --json FILE` writes one.")
    return data


def headers_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the headers of the runs of a coverage, with what it kept of them."""
    return [
        {"run": {"command": run["command"], "started": run["started"]}, "versions": run["versions"]}
        for run in data["runs"]
    ]


def results_of(data: Mapping[str, Any]) -> Iterator[CellResult]:
    """Return the cells of a coverage, with what it kept of them: checks, reasons, causes and the distance of parity."""
    for model, about in data["models"].items():
        for column, cell in about["cells"].items():
            device, _, dtype = column.rpartition(" ")
            yield CellResult(
                cell=f"{model}-{device}-{dtype}",
                model=model,
                architecture=about["class"],
                module=next(iter(_MODULE.findall(cell.get("command", ""))), ""),
                task=about["task"],
                device=device,
                dtype=dtype,
                weights=about["weights"],
                checks=list(_outcomes(cell)),
            )


def _outcomes(cell: Mapping[str, Any]) -> Iterator[CheckOutcome]:
    problems = {problem["check"]: problem for problem in cell.get("problems", ())}
    for status, names in cell["checks"].items():
        for name in names:
            outcome = CheckOutcome(name, Status(status))
            if problem := problems.get(name):
                outcome.stage = Stage(problem["stage"]) if problem["stage"] in set(Stage) else None
                outcome.reason = problem["reason"]
                outcome.measures["cause"] = problem["cause"]
            elif outcome.status != Status.PASSED:
                outcome.reason = NOT_REACHED
            if name == "parity" and "rel_l2" in cell:
                outcome.measures["rel_l2"] = cell["rel_l2"]
            yield outcome
