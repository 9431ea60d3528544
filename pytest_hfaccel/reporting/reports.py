"""The reports of a finished run: by class, by hardware, a summary, and the table model x device."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import BLIND_TO, TWIN, CellResult, Ended, Status
from pytest_hfaccel.reporting.costs import cost_rows, prices_of_run
from pytest_hfaccel.reporting.plain import to_plain
from pytest_hfaccel.reporting.run_facts import envelope
from pytest_hfaccel.reporting.tables import table_in_blocks

BY_CLASS, BY_HARDWARE, SUMMARY = "by_class", "by_hardware", "summary.json"
COMPARISON = "comparison.json"

_CLASS_LEVEL = "class"
_SUMMED = ("requests", "hits", "misses", "loads", "failures", "evictions", "oom_retries", "load_seconds")
"""What the summary adds up of the pools' statistics."""


def write_reports(
    directory: Path,
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    *,
    ended: Ended = Ended.FINISHED,
    comparison: Mapping[str, Any] | None = None,
    mode: int | None = None,
    root: str | None = None,
) -> list[Path]:
    """Write the reports of a run, each file as a whole.

    Args:
        directory: The run's own directory; it is made.
        results: The records of all cells of the run.
        header: Plain JSON about the run: `started`, `finished`, `machine`, `options`, `absent_devices`, `pool` (a list:
            the statistics of each process's pool), and what else is worth keeping.
        ended: How the run ended; one that did not finish has not passed.
        comparison: What changed since a baseline; its schema is `comparison`.
        mode: The files' permissions; by default those the process gives to any file.
        root: A directory: paths below it are written relative to it.

    Returns:
        The files written, `summary.json` last.

    Raises:
        ConfigError: A file cannot be written; names it. Files written before stand, each complete.
    """
    by_module, by_kind = defaultdict(list), defaultdict(list)
    for result in results:
        by_module[result.module].append(result)
        if result.device != _CLASS_LEVEL:
            by_kind[kind_of(result.device)].append(result)
    contents: dict[str, Mapping[str, Any]] = {}
    for folder, suffix, key, groups, several in (
        (BY_CLASS, "models", "module", by_module, ("architectures", attrgetter("architecture"))),
        (BY_HARDWARE, "results", "kind", by_kind, ("devices", attrgetter("device"))),
    ):
        shared = envelope(folder.replace("_", "-"), header, root)
        for name, cells in groups.items():
            values = sorted(set(map(several[1], cells)))
            body = {key: name, several[0]: values, "counts": counts_of(cells), "cells": [c.to_json() for c in cells]}
            contents[f"{folder}/{_file_name(name)}_{suffix}.json"] = {**shared, **to_plain(body, root)}
    if comparison is not None:
        contents[COMPARISON] = to_plain(comparison, root)
    contents[SUMMARY] = summary_of(results, header, ended, root, comparison)
    for file, data in contents.items():
        try:
            text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
            replace_file(directory / file, f"{text}\n", mode=mode)
        except OSError as error:
            raise ConfigError(
                f"{directory / file}: the report cannot be written: {error.strerror}",
                hint="Free space or change the permissions, or choose another directory with --hf-reports.",
            ) from error
    return [directory / file for file in contents]


def _file_name(name: str) -> str:
    """A user's module may have any name that Python takes; a file name keeps to a few characters."""
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-.") or "unnamed"


def summary_of(
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    ended: str = Ended.FINISHED,
    root: str | None = None,
    comparison: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of `summary.json`; see `write_reports` for the arguments."""
    body = {
        "passed": ended == Ended.FINISHED
        and not any(map(speaks_against, results))
        and any(result.status in (Status.PASSED, Status.XFAILED) for result in results),
        "ended": ended,
        "counts": counts_of(results),
        "by_class_and_device": _by_class_and_device(results),
        "weights": _weights(results),
        "failures": _notable(results, lambda status: status.is_bad),
        "expected_failures": _notable(results, lambda status: status == Status.XFAILED),
        "unavailable": _notable(results, lambda status: status == Status.UNAVAILABLE),
        "skipped_checks": _skipped_checks(results),
        "precision_twins": precision_twins(results),
        "costs": cost_rows(results, prices_of_run(header)),
        "absent_devices": dict(header.get("absent_devices") or {}),
        "pool": _pool_totals(header.get("pool") or []),
    }
    if comparison is not None:
        baseline = comparison["baseline"]
        body["comparison"] = {
            "baseline": baseline["id"] or baseline["source"],
            **{name: comparison[name] for name in ("passed", "fail_on", "worse")},
            "file": COMPARISON,
        }
    plain: dict[str, Any] = to_plain(body, root)
    return {**envelope("summary", header, root), **plain}


def speaks_against(result: CellResult) -> bool:
    """Whether a run with this cell did not pass: it failed, or not all of its selected checks ran."""
    return result.status.is_bad or result.incomplete


def counts_of(results: Iterable[CellResult]) -> dict[str, dict[str, int]]:
    """Count cells and checks by status; a status that did not occur is left out."""
    listed = list(results)
    return {
        "cells": _count(result.status for result in listed),
        "checks": _count(check.status for result in listed for check in result.checks),
    }


def _count(statuses: Iterable[Status]) -> dict[str, int]:
    found = Counter(statuses)
    return {str(status): found[status] for status in Status if status in found}


def _by_class_and_device(results: Iterable[CellResult]) -> dict[str, dict[str, dict[str, int]]]:
    groups: dict[str, dict[str, list[Status]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        groups[result.module][result.device].append(result.status)
    return {
        module: {device: _count(statuses) for device, statuses in devices.items()} for module, devices in groups.items()
    }


def _weights(results: Iterable[CellResult]) -> list[dict[str, str]]:
    found = dict.fromkeys((result.model, result.weights, result.weights_reason) for result in results)
    return [{"model": model, "weights": weights, "reason": reason} for model, weights, reason in found]


def _notable(results: Iterable[CellResult], wanted: Callable[[Status], bool]) -> list[dict[str, Any]]:
    return [
        {
            "cell": result.cell,
            "model": result.model,
            "architecture": result.architecture,
            "device": result.device,
            "dtype": result.dtype,
            "weights": result.weights,
            "status": result.status,
            "stage": result.stage,
            "reason": result.reason,
            "checks": [check.name for check in result.checks if wanted(check.status)],
        }
        for result in results
        if wanted(result.status)
    ]


def precision_twins(results: Iterable[CellResult]) -> dict[str, Any]:
    """Count the cells whose parity fails at the next lower precision, and name those whose parity passes there."""
    twins = [(r.cell, check.measures) for r in results for check in r.checks if TWIN in check.measures]
    blind: dict[str, list[str]] = defaultdict(list)
    for cell, measures in twins:
        if BLIND_TO in measures:
            blind[measures[BLIND_TO]].append(cell)
    return {"noticed": len(twins) - sum(map(len, blind.values())), "blind_to": dict(blind)}


def last_lines(results: Sequence[CellResult]) -> list[str]:
    """Return what is printed below the table: what the cells would notice, and how their errors compare."""
    lines = (precision_line(results), budget_line(results), unjudged_line(results), power_line(results))
    return [line for line in lines if line]


def precision_line(results: Iterable[CellResult]) -> str:
    """Say in one line how many cells would notice the next lower precision; empty if none was compared."""
    found = precision_twins(results)
    if not found["noticed"] and not found["blind_to"]:
        return ""
    blind = [
        f"{len(cells)} blind to {dtype} ({', '.join(cells[:3])}{', ...' if len(cells) > 3 else ''})"
        for dtype, cells in found["blind_to"].items()
    ]
    noticed = f"{found['noticed']} cell{'' if found['noticed'] == 1 else 's'}"
    return ", ".join([f"precision: {noticed} would notice the next lower one", *blind])


def budget_line(results: Iterable[CellResult]) -> str:
    """Say in one line how the errors compare with what rounding must cost; empty if no passed cell has a budget.

    A failure says it itself.
    """
    ratios = {
        result.cell: budget["ratio"]
        for result in results
        for check in result.checks
        if check.name == "parity" and check.status == Status.PASSED
        if isinstance(budget := check.measures.get("budget"), Mapping) and "ratio" in budget
    }
    if not ratios:
        return ""
    worst = max(ratios, key=lambda cell: ratios[cell])
    return (
        f"error budget: in {len(ratios)} passed cells the error is {min(ratios.values()):.2g} to {ratios[worst]:.2g} "
        f"times what rounding must cost ({worst})"
    )


def unjudged_line(results: Iterable[CellResult]) -> str:
    """Say in one line which cells have inputs that could not be judged; empty if none has."""
    found = {
        result.cell: f"{', '.join(sorted({leaf for leaves in inputs.values() for leaf in leaves}))} on {len(inputs)}"
        for result in results
        for check in result.checks
        if check.name == "parity" and isinstance(inputs := check.measures.get("not_judged"), Mapping)
    }
    if not found:
        return ""
    shown = "; ".join(f"{cell}: {text}" for cell, text in list(found.items())[:3])
    more = "; ..." if len(found) > 3 else ""
    return f"not judged: inputs for which rounding alone is beyond the limit, in {len(found)} cells ({shown}{more})"


def power_line(results: Iterable[CellResult]) -> str:
    """Say in one line how small a fault the cells notice; empty if no cell was asked."""
    found = {
        result.cell: power["rel_l2"]
        for result in results
        for check in result.checks
        if check.name == "canary" and isinstance(power := check.measures.get("power"), Mapping) and "rel_l2" in power
    }
    if not found:
        return ""
    worst = max(found, key=lambda cell: found[cell])
    return (
        f"power: {len(found)} cells notice a wrong weight from the size on that moves the outputs by rel-L2 "
        f"{min(found.values()):.2g} to {found[worst]:.2g} ({worst})"
    )


def _skipped_checks(results: Iterable[CellResult]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        for check in result.checks:
            if check.status == Status.SKIPPED:
                found[check.name, check.reason or ""].append(result.cell)
    return [{"check": check, "reason": reason, "cells": cells} for (check, reason), cells in found.items()]


def _pool_totals(processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the statistics of the processes of a parallel run; each process has a pool of its own."""
    loads: Counter[str] = Counter()
    for process in processes:
        loads.update(process.get("loads_by_key", {}))
    totals = {name: sum(process.get(name, 0) for process in processes) for name in _SUMMED}
    errors = [error for process in processes for error in process.get("close_errors", [])]
    return {"processes": len(processes), **totals, "loads_by_key": dict(sorted(loads.items())), "close_errors": errors}


def model_device_rows(results: Sequence[CellResult]) -> list[list[str]]:
    """Return the table as rows of texts: a header, then one row per model and weights.

    The columns are the class level, then each device and dtype, in the order of their first result. A model that did
    not run on a device has `-` there.
    """
    emulated = {(each.device, each.dtype) for each in results if each.implementation == "emulated"}
    names = {(each.device, each.dtype): _column(each, emulated) for each in results}
    columns = sorted(dict.fromkeys(names.values()), key=lambda column: column != _CLASS_LEVEL)
    cells: dict[str, dict[str, str]] = {}
    for result in results:
        cells.setdefault(_label(result), {})[names[result.device, result.dtype]] = cell_text(result)
    body = [[label, *(row.get(column, "-") for column in columns)] for label, row in cells.items()]
    return [["model [weights]", *columns], *body]


def model_device_table(results: Sequence[CellResult], width: int = 100) -> str:
    """Return the table as text of at most `width` columns; devices that do not fit side by side go one below the other.

    A table is wider only where a single device's column does not fit beside the models.
    """
    return table_in_blocks(model_device_rows(results), width)


def cell_text(result: CellResult) -> str:
    """Return what the table says of a cell: `12 passed`, `failed parity +2`, `unavailable`."""
    status = result.status
    passed = sum(check.status == Status.PASSED for check in result.checks)
    skipped = sum(check.status == Status.SKIPPED for check in result.checks)
    if status == Status.UNAVAILABLE:
        return str(status)
    if status == Status.SKIPPED:
        return f"{skipped} skipped" if skipped else "nothing ran"
    if status == Status.PASSED:
        return f"{passed} passed, {skipped} skipped" if skipped else f"{passed} passed"
    if status == Status.INCOMPLETE:
        return f"incomplete, {passed} passed"
    same = [check.name for check in result.checks if check.status == status]
    others = sum(check.status.is_bad for check in result.checks if check.status != status) + len(same) - 1
    return f"{str(status).replace('_', ' ')} {same[0]}" + (f" +{others}" if others else "")


def _label(result: CellResult) -> str:
    name = result.model
    room = 44 - len(result.weights) - 3
    if len(name) > room:  # the end of a path or an id says most
        name = "..." + name[3 - room :]
    return f"{name} [{result.weights}]"


def _column(result: CellResult, emulated: Collection[tuple[str, str]]) -> str:
    if result.device == _CLASS_LEVEL:
        return _CLASS_LEVEL
    return f"{result.device} {result.dtype}" + " (emulated)" * ((result.device, result.dtype) in emulated)
