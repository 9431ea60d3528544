"""The run on one page: counts, failures with reasons, weights with reasons, and the pool's numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pytest_hfaccel.core.results import BLIND_TO, TWIN, CellResult, Ended, Status
from pytest_hfaccel.reporting.envelope import envelope
from pytest_hfaccel.reporting.plain import to_plain

_SUMMED = ("requests", "hits", "misses", "loads", "failures", "evictions", "oom_retries", "load_seconds")


_NAMED = 3
"""How many cells a line names."""


def summary_of(
    results: Sequence[CellResult], header: Mapping[str, Any], ended: str = Ended.FINISHED, root: str | None = None
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
        "absent_devices": dict(header.get("absent_devices") or {}),
        "pool": _pool_totals(header.get("pool") or []),
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
    """Count the cells whose parity fails at the next lower precision, and name those, by precision, whose does not."""
    twins = [(r.cell, check.measures) for r in results for check in r.checks if TWIN in check.measures]
    blind: dict[str, list[str]] = defaultdict(list)
    for cell, measures in twins:
        if BLIND_TO in measures:
            blind[measures[BLIND_TO]].append(cell)
    return {"noticed": len(twins) - sum(map(len, blind.values())), "blind_to": dict(blind)}


def precision_line(results: Iterable[CellResult]) -> str:
    """Say in one line how many cells would notice the next lower precision; empty where none tried."""
    found = precision_twins(results)
    if not found["noticed"] and not found["blind_to"]:
        return ""
    blind = [
        f"{len(cells)} blind to {dtype} ({', '.join(cells[:_NAMED])}{', ...' if len(cells) > _NAMED else ''})"
        for dtype, cells in found["blind_to"].items()
    ]
    return ", ".join([f"precision: {found['noticed']} cells would notice the next lower one", *blind])


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
    return {
        "processes": len(processes),
        **totals,
        "loads_by_key": dict(sorted(loads.items())),
        "close_errors": errors,
    }
