"""The support matrix: how each class ended on each device, check by check, as JSON, and its totals as Markdown.

`reporting.evidence` makes it of runs; what people look up is the site that it makes.
"""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import (
    MEANINGS,
    NOT_REACHED,
    SCHEMA_VERSION,
    CellResult,
    CheckOutcome,
    Stage,
    Status,
    cause_of,
)
from pytest_hfaccel.reporting.plain import without_folders
from pytest_hfaccel.reporting.tables import markdown_table

_ENTRY = re.compile(r" \[[^\[\]]+:\d+\]$")
_MODULE = re.compile(r"test_hf_(\w+)\.py")
_REASON_LENGTH, _COMMAND_LENGTH = 300, 320
_COMPRESSED = ".xz"
_COUNTED = (Status.XFAILED, Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.UNAVAILABLE)
_RUNS_SHOWN = 6
_PACKAGES = ("transformers", "torch", "openvino", "nncf", "onnxruntime", "pytest-hfaccel")


@dataclass
class Coverage:
    """The newest record of each cell of many runs.

    Attributes:
        runs: The headers of their journals.
        cells: The records, sorted by model and device.
        sources: By model, device and dtype: the numbers of the runs that the record is from, where they are known.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    cells: list[CellResult] = field(default_factory=list)
    sources: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)

    def columns(self) -> list[tuple[str, str]]:
        """The (device, dtype) that ran, the class level first."""
        found = {(cell.device, cell.dtype) for cell in self.cells}
        return sorted(found, key=lambda column: (column[0] != "class", column[0] != "cpu", *column))

    def of(self, device: str, dtype: str) -> list[CellResult]:
        """The cells of one device and dtype."""
        return [cell for cell in self.cells if (cell.device, cell.dtype) == (device, dtype)]


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """Return all that is known, as plain JSON: per class its cells, per cell the checks by how they ended."""
    models: dict[str, dict[str, Any]] = {}
    for cell in coverage.cells:
        about: dict[str, Any] = {"class": cell.architecture, "task": cell.task, "weights": cell.weights}
        about |= {"module": cell.module} if cell.module else {}
        model = models.setdefault(cell.model, {**about, "cells": {}})
        found = _cell(cell, coverage.sources.get((cell.model, cell.device, cell.dtype), []))
        if cell.weights != model["weights"]:
            found["weights"] = cell.weights
        model["cells"][f"{cell.device} {cell.dtype}"] = found
    return {
        "schema": "pytest-hfaccel/coverage",
        "schema_version": SCHEMA_VERSION,
        "runs": [_run(header) for header in coverage.runs],
        "models": models,
    }


def failures_of(cell: CellResult) -> list[CheckOutcome]:
    """Return the outcomes of a cell that did not pass, each reason once."""
    bad = [check for check in cell.checks if check.status not in (Status.PASSED, Status.SKIPPED)]
    first = [check for check in bad if NOT_REACHED not in (check.reason or "")]
    by_reason: dict[str, CheckOutcome] = {}
    for check in first or bad:
        by_reason.setdefault(f"{check.stage} {reason_of(check)}", check)
    return list(by_reason.values())


def reason_of(outcome: CheckOutcome) -> str:
    """Return why a check did not pass, on one line; for an expected failure, the reason in its entry."""
    lines = (outcome.reason or str(outcome.status)).splitlines()
    expected = outcome.status == Status.XFAILED
    text = _ENTRY.sub("", lines[0]) if expected else " ".join(line.strip() for line in lines)
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 1] + "…"


_MEASURED = ("median_ms", "samples_per_second", "memory_bytes")


def _cell(cell: CellResult, runs: Sequence[int]) -> dict[str, Any]:
    checks: dict[str, list[str]] = {}
    for check in cell.checks:
        checks.setdefault(str(check.status), []).append(check.name)
    found: dict[str, Any] = {"status": str(cell.status), "checks": checks}
    measures = {check.name: check.measures for check in reversed(cell.checks)}
    parity, speed = measures.get("parity", {}), measures.get("performance", {})
    if isinstance(parity.get("rel_l2"), float):
        found["rel_l2"] = float(f"{parity['rel_l2']:.3g}")
    limits = parity.get("tolerance")
    numbers = {"tolerance": limits.get("rel_l2") if isinstance(limits, Mapping) else None}
    numbers |= {name: speed.get(name) for name in _MEASURED}
    numbers["weights_bytes"] = cell.placement.get("bytes")
    found |= {name: float(f"{value:.4g}") for name, value in numbers.items() if isinstance(value, int | float)}
    if cell.implementation != "real":
        found["implementation"] = cell.implementation
    if runs:
        found["runs"] = list(runs)
    problems = [
        {
            "check": check.name,
            "status": str(check.status),
            "stage": str(check.stage),
            "cause": cause_of(check, cell.device),
            "reason": without_folders(reason_of(check), "…/"),
        }
        for check in failures_of(cell)
    ]
    return {**found, "problems": problems, "command": command_of(cell)} if problems else found


def _run(header: dict[str, Any]) -> dict[str, Any]:
    run = header.get("run", {})
    versions = {name: version for name, version in header.get("versions", {}).items() if version}
    return {"command": command_of_run(header), "started": run.get("started"), "versions": versions}


def read_coverage_json(path: Path) -> dict[str, Any]:
    """Read what `write_coverage_json` wrote.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
        data = json.loads(lzma.decompress(content) if path.suffix == _COMPRESSED else content)
    except (OSError, ValueError, lzma.LZMAError) as error:
        raise ConfigError(f"{path} cannot be read as a support matrix: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != "pytest-hfaccel/coverage":
        raise ConfigError(f"{path} is no support matrix.", hint="`hfaccel support JOURNAL --json FILE` writes one.")
    return data


def write_coverage_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write what `coverage_json` returned, compressed where the name ends in `.xz`.

    Raises:
        OSError: The file cannot be written.
    """
    content = (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
    replace_file(path, lzma.compress(content, preset=9) if path.suffix == _COMPRESSED else content)


def results_of(data: Mapping[str, Any]) -> Iterator[tuple[CellResult, list[int]]]:
    """Rebuild the cells (checks, reasons, causes, numbers) and, where it is known, from which of the runs each is."""
    for model, about in data["models"].items():
        for column, cell in about["cells"].items():
            device, _, dtype = column.rpartition(" ")
            result = CellResult(
                cell=f"{model}-{device}-{dtype}",
                model=model,
                architecture=about["class"],
                module=about.get("module") or next(iter(_MODULE.findall(cell.get("command", ""))), ""),
                task=about["task"],
                device=device,
                dtype=dtype,
                weights=cell.get("weights", about["weights"]),
                implementation=cell.get("implementation", "real"),
                placement={"bytes": cell["weights_bytes"]} if "weights_bytes" in cell else {},
                checks=list(_outcomes(cell)),
            )
            yield result, cell.get("runs", [])


def _outcomes(cell: Mapping[str, Any]) -> Iterator[CheckOutcome]:
    problems = {problem["check"]: problem for problem in cell.get("problems", ())}
    for status, names in cell["checks"].items():
        for name in names:
            outcome = CheckOutcome(name, Status(status))
            if problem := problems.get(name):
                outcome.stage = Stage(problem["stage"]) if problem["stage"] in set(Stage) else None
                outcome.reason = problem["reason"]
                outcome.cause = problem["cause"]
            elif outcome.status != Status.PASSED:
                outcome.reason = NOT_REACHED
            if name == "parity" and "rel_l2" in cell:
                outcome.measures["rel_l2"] = cell["rel_l2"]
            if name == "parity" and "tolerance" in cell:
                outcome.measures["tolerance"] = {"rel_l2": cell["tolerance"]}
            if name == "performance":
                outcome.measures |= {each: cell[each] for each in _MEASURED if each in cell}
            yield outcome


def command_of(cell: CellResult) -> str:
    """Return the command that runs a cell again."""
    where = "" if cell.device == "class" else f" --hf-device {cell.device} --hf-dtype {cell.dtype}"
    return f"pytest model_classes/test_hf_{cell.module}.py --hf-model {cell.model}{where}"


def command_of_run(header: dict[str, Any]) -> str | None:
    """Return the command line of a run for others to read.

    It is shortened where it names hundreds of models. Of absolute paths the last part is kept: the others say where
    things lie on one machine, the name of its user included.
    """
    command: str | None = header.get("run", {}).get("command")
    if command is None:
        return None
    command = without_folders(command, "…/")
    if len(command) <= _COMMAND_LENGTH:
        return command
    half = _COMMAND_LENGTH // 2
    return f"{command[:half].rpartition(' ')[0]} … {command[-half:].partition(' ')[2]}"


def totals_page(coverage: Coverage, title: str = "Support matrix") -> str:
    """Return the totals in Markdown: how cells ended by device, checks by device, and causes of what did not pass."""
    sections = (
        [f"# {title}", "", *_runs_of(coverage)],
        ["## By device", "", *_by_device(coverage)],
        ["## By check", "", *_by_check(coverage)],
        ["## What did not pass, by cause", "", *_by_cause(coverage)],
    )
    return "\n".join(line for section in sections for line in (*section, "")).rstrip() + "\n"


def _runs_of(coverage: Coverage) -> Iterator[str]:
    yield "Totals of these runs. `hfaccel site` makes a site of them: each class with its failures and evidence."
    yield ""
    for header in coverage.runs[:_RUNS_SHOWN]:
        run, versions = header.get("run", {}), header.get("versions", {})
        packages = ", ".join(f"{name} {versions[name]}" for name in _PACKAGES if versions.get(name))
        yield f"- `{command_of_run(header)}` ({run.get('started')}; {packages})"
    if len(coverage.runs) > _RUNS_SHOWN:
        yield f"- and {len(coverage.runs) - _RUNS_SHOWN} more, which the JSON lists"


def _by_device(coverage: Coverage) -> Iterator[str]:
    yield "Parity is the share of the classes that could be tried: `unavailable` ones lack a package."
    yield ""
    heads = ["device", "dtype", "classes", "all checks passed", *map(str, _COUNTED), "parity"]
    rows = []
    for device, dtype in coverage.columns():
        cells = coverage.of(device, dtype)
        counts = Counter(cell.status for cell in cells)
        passed = counts[Status.PASSED] + counts[Status.SKIPPED]
        parity = [check.status for cell in cells for check in cell.checks if check.name == "parity"]
        here = len(cells) - counts[Status.UNAVAILABLE]
        share = _share(parity.count(Status.PASSED), here) if device != "class" else ""
        statuses = [counts[status] or "" for status in _COUNTED]
        rows.append([device, dtype, len(cells), _share(passed, len(cells)), *statuses, share])
    yield from markdown_table(heads, rows)


def _by_check(coverage: Coverage) -> Iterator[str]:
    columns = coverage.columns()
    names = dict.fromkeys(check.name for cell in coverage.cells for check in cell.checks)
    rows = [[name, *(_ended(coverage.of(*column), name) for column in columns)] for name in names]
    yield "Passed of all that ran; a check that a class cannot have is not counted."
    yield ""
    yield from markdown_table(["check", *(f"{device} {dtype}" for device, dtype in columns)], rows)


def _ended(cells: Iterable[CellResult], name: str) -> str:
    statuses = [check.status for cell in cells for check in cell.checks if check.name == name]
    ran = [status for status in statuses if status not in (Status.SKIPPED, Status.UNAVAILABLE)]
    return f"{ran.count(Status.PASSED)}/{len(ran)}" if ran else ""


def _by_cause(coverage: Coverage) -> Iterator[str]:
    causes = Counter(
        (cause_of(outcome, cell.device), f"{cell.device} {cell.dtype}")
        for cell in coverage.cells
        for outcome in failures_of(cell)
    )
    columns = [f"{device} {dtype}" for device, dtype in coverage.columns()]
    rows = [
        [f"{cause}: {meaning}", *(causes[cause, column] or "" for column in columns)]
        for cause, meaning in MEANINGS.items()
        if any(causes[cause, column] for column in columns)
    ]
    yield from markdown_table(["cause", *columns], rows)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"
