"""From the records of a run, and of earlier ones, to what the page shows: small, plain, and split for fast loading.

What the matrix, the filter and the charts need is one object, the index; it is columnar, and each text stands in it
once. What a cell shows when it is opened lies in chunks of `DETAILS_PER_CHUNK` cells, unpacked when they are asked for.
"""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import (
    MEANINGS,
    NOT_REACHED,
    Cause,
    CellKey,
    CellResult,
    CheckOutcome,
    Ended,
    Status,
    blame,
    cause_of,
    error_in_budgets,
    smallest_noticed_fault,
)
from pytest_hfaccel.reporting.journal import JOURNAL, read_journal
from pytest_hfaccel.reporting.plain import redact, to_plain
from pytest_hfaccel.reporting.reports import speaks_against
from pytest_hfaccel.reporting.run_facts import envelope

DETAILS_PER_CHUNK = 128
_DIGITS = 5
_LARGEST = 1e300
_GONE_SHOWN = 500
_CHANGES_SHOWN = 500
_NOTICED = 1.1
"""A single run has noise of a few per cent: speed counts as changed from a tenth on."""
_UNCERTAINTIES = 2.5
_ENOUGH = 4
"""So many cells of a device tell what they have in common. Both numbers are those of `hfaccel compare`."""
_BUSY = 1.0
"""Distance between the quartiles of the calibration loop, as a share of its median, from which on the CPU was busy."""
_OF_A_SIDE = ("kind", "source", "id", "started", "commit", "runs", "cells", "measurements", "complete")
_STATUSES = tuple(Status)
NUMBERS = ("latency", "throughput", "memory", "error", "tolerance", "seconds", "budget", "power")
_ONCE_ELSEWHERE = ("measurements", "placement")
"""Parts of measures that are large, and that the page shows in another form."""


@dataclass(frozen=True)
class PastRun:
    """What the page says of an earlier run.

    Attributes:
        facts: `id`, `started`, `status`, `command`, `counts` (cells by status), `commit`, `versions`, `machine`.
        cells: By cell: status, weights, latency in ms, relative error, model, device, dtype, and how long its fastest
            repetition took, see `_fastest`.
    """

    facts: dict[str, Any]
    cells: dict[CellKey, tuple[Any, ...]]


def read_past_runs(folders: Sequence[Path], limit: int | None = None) -> list[PastRun]:
    """Read the journals of earlier runs, given oldest first, and return those that have a finished cell.

    Args:
        folders: Their folders.
        limit: Bytes of journals after which no older one is read; `None` for all. The last one is always read.
    """
    found: list[PastRun] = []
    size = 0
    for folder in reversed(folders):
        try:
            size += (folder / JOURNAL).stat().st_size
            if found and limit is not None and size > limit:
                break
            contents = read_journal(folder / JOURNAL)
        except (OSError, ConfigError):
            continue
        if not contents.results:
            continue
        ended = str(contents.end.get("ended", "ended early"))
        if ended == Ended.FINISHED:
            ended = "failed" if any(map(speaks_against, contents.results)) else "passed"
        run, machine = contents.header.get("run", {}), contents.header.get("machine", {})
        facts = {
            "id": folder.name,
            "started": run.get("started", ""),
            "status": ended,
            "command": run.get("command", ""),
            "counts": _counts(contents.results),
            "commit": contents.header.get("commit"),
            "versions": _present(contents.header.get("versions", {})),
            "machine": machine_name(machine),
        }
        found.append(PastRun(facts, {each.key: _before(each) for each in contents.results if not each.from_run}))
    return found[::-1]


def page_data(
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    *,
    ended: str,
    earlier: Sequence[PastRun],
    comparison: Mapping[str, Any] | None = None,
    root: str | None,
) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return the index and the chunks of details; see `make_page` for the arguments."""
    shared = envelope("summary", header, root)
    run, machine = shared["run"], shared["machine"]
    plain = Plain(root)
    rows, columns, texts, names = Table(), Table(), Table(), Table()
    ordered = sorted(results, key=_order)
    cells, details = [], []
    for result in ordered:
        family = family_of(result.model, result.architecture, result.task)
        why = texts.add(plain(result.weights_reason))
        about = (result.model, result.architecture, result.module, result.task, family, result.weights, why)
        row = rows.add(tuple(plain(about)))
        column = columns.add((result.device, result.dtype))
        checks = [check_entry(check, result, names, texts, plain) for check in result.checks]
        cell: list[Any] = [row, column, plain(result.cell), _STATUSES.index(result.status)]
        cell += [result.implementation, checks, plain(numbers_of(result)), plain(_points(result))]
        cells.append(cell)
        details.append(_details(result, plain))
    keys = [result.key for result in ordered]
    index = {
        "run": {
            "id": run.get("id", ""),
            "ended": ended,
            "passed": ended == Ended.FINISHED
            and not any(map(speaks_against, results))
            and any(result.status in (Status.PASSED, Status.XFAILED) for result in results),
            **{name: run.get(name) for name in ("started", "finished", "command", "workers", "rootdir", "resumed")},
        },
        "machine": machine,
        "machine_name": machine_name(machine),
        "versions": _present(shared["versions"]),
        "commit": shared["commit"],
        "options": shared["options"],
        "absent": run.get("absent_devices") or {},
        "statuses": [[str(status), status.is_bad] for status in _STATUSES],
        "worst_first": [str(status) for status in sorted(_STATUSES, key=lambda status: status.rank)],
        "causes": {str(cause): MEANINGS[cause] for cause in Cause},
        "not_reached": NOT_REACHED,
        "numbers": NUMBERS,
        "rows": rows.values(),
        "columns": columns.values(),
        "checks": names.values(),
        "texts": texts.values(),
        "cells": cells,
        "chunk": DETAILS_PER_CHUNK,
        "earlier": to_plain([each.facts for each in earlier], root),
        "history": _history(keys, earlier),
        "gone": to_plain(_gone(set(keys), earlier), root),
        "speed_changes": plain(_speed_changes(ordered, earlier, comparison)),
        "disturbed": _disturbed(results),
        "comparison": plain(_shown_of(comparison)) if comparison else None,
    }
    return index, [details[at : at + DETAILS_PER_CHUNK] for at in range(0, len(details), DETAILS_PER_CHUNK)]


class Table:
    """Values by number, each once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def add(self, value: Any) -> int:
        """Return the number of a value, a new one if it is new."""
        return self._numbers.setdefault(value, len(self._numbers))

    def values(self) -> list[Any]:
        """Return the values in the order of their numbers."""
        return list(self._numbers)


class Plain:
    """Makes values plain as `to_plain` does, with floats rounded for reading; most texts come more than once."""

    def __init__(self, root: str | None) -> None:
        self._text = cache(lambda text: redact(text, root=root))

    def __call__(self, value: Any) -> Any:
        """Return the plain form of a value."""
        if isinstance(value, Enum):
            value = value.value
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {self._text(str(name)): self(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        return self._text(str(value))


def _order(result: CellResult) -> tuple[Any, ...]:
    is_class, is_cpu = result.device != "class", result.device != "cpu"
    name = result.model.rpartition("/")[2].lower()
    return (result.module, name, result.model, result.weights, is_class, is_cpu, result.device, result.dtype)


@cache
def family_of(model: str, architecture: str, task: str) -> str:
    """Return the family of a model, `unknown` where the classifier has none."""
    from pytest_hfaccel.classify import classify_model

    return classify_model(model, architecture, [task])["family"] or "unknown"


def check_entry(check: CheckOutcome, result: CellResult, names: Table, texts: Table, plain: Plain) -> Any:
    """A check that passed is the number of its name; others say how they ended, and why."""
    name = names.add(check.name)
    if check.status == Status.PASSED:
        return name
    reason = texts.add(plain(check.reason or ""))
    is_judged = check.status != Status.SKIPPED
    cause = str(cause_of(check, result.device)) if is_judged and NOT_REACHED not in (check.reason or "") else ""
    entry: list[Any] = [name, _STATUSES.index(check.status), str(check.stage or ""), cause, reason]
    first = blame(check, result.device)
    return [*entry, texts.add(first)] if first else entry


def numbers_of(result: CellResult) -> list[float | None]:
    """Return the numbers of a cell that are compared between devices and runs.

    They are the median latency in ms and samples per second at the first measured point, the bytes of a forward pass
    (else of the weights on the device), the relative error of parity and its tolerance, the seconds of all checks and
    of loading, and the error in multiples of what rounding must cost: the largest one of the inputs. The last one is
    how far the smallest wrong weight that the cell notices moves the outputs.
    """
    # pytest measures each point in a test of its own: the first one counts.
    measures = {check.name: check.measures for check in reversed(result.checks)}
    parity, speed = measures.get("parity", {}), measures.get("performance", {})
    memory = speed.get("memory_bytes") or result.placement.get("bytes")
    limits = parity.get("tolerance")
    seconds = sum(check.seconds for check in result.checks) + sum(result.timings.values())
    values = (
        speed.get("median_ms"),
        speed.get("samples_per_second"),
        memory,
        parity.get("rel_l2"),
        limits.get("rel_l2") if isinstance(limits, Mapping) else None,
        seconds,
        error_in_budgets(parity),
        smallest_noticed_fault(measures.get("canary", {})),
    )
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """A measure is what a check gave; a third party's may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None


def _points(result: CellResult) -> list[list[Any]]:
    """Batch, length, ms, samples per second, bytes, and ms per token of each measured point."""
    found = [check.measures.get("measurements") for check in result.checks if check.name == "performance"]
    points = []
    for point in (one for many in found if isinstance(many, list) for one in many if isinstance(one, Mapping)):
        latency = point.get("latency") or {}
        values = (latency.get("median_ms"), point.get("samples_per_second"), point.get("memory_bytes"))
        points.append([point.get("batch"), point.get("length"), *map(_number, values), point.get("per_token_ms")])
    return points


def _details(result: CellResult, plain: Plain) -> list[Any]:
    """Measures and seconds by check, the placement, the seconds of loading, the command, the run it is from."""
    checks = [[_trimmed(check.measures), round(check.seconds, 4)] for check in result.checks]
    placed = result.placement if not any(check.name == "placement" for check in result.checks) else {}
    found: list[Any] = plain([checks, placed, result.timings, reproduce(result), result.from_run])
    return found


def _trimmed(measures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measures.items() if name not in _ONCE_ELSEWHERE}


def reproduce(result: CellResult) -> str:
    """Return the command that runs a cell again, quoted for a POSIX shell: a model's name may be anything."""
    module = result.module.partition(".")[0]
    where = [] if result.device == "class" else ["--hf-device", result.device, "--hf-dtype", result.dtype]
    words = [f"model_classes/test_hf_{module}.py", "--hf-model", result.model, *where, "--hf-weights", result.weights]
    return shlex.join(["pytest", *words])


def _before(result: CellResult) -> tuple[Any, ...]:
    latency, _, _, error, *_ = numbers_of(result)
    about = (result.model, result.device, result.dtype)
    return (str(result.status), result.weights, latency, error, *about, _fastest(result))


def _first_point(result: CellResult) -> Mapping[str, Any]:
    """The first measured point of a cell, empty where none was measured."""
    measures = {check.name: check.measures for check in reversed(result.checks)}
    points = measures.get("performance", {}).get("measurements")
    return points[0] if isinstance(points, list) and points and isinstance(points[0], Mapping) else {}


def _fastest(result: CellResult) -> tuple[float, float] | None:
    """The fastest repetition in ms, and how far a quarter of them is from it, as a share.

    Whatever else a machine does only adds time, so that this moves least from run to run. `None` where nothing was
    measured, or on a busy machine: threads that wait for each other can take any time.
    """
    point = _first_point(result)
    if _is_disturbed(point):
        return None
    details = point.get("details")
    repetitions = details.get("block_minima_ms") if isinstance(details, Mapping) else None
    known = sorted(value for value in map(_number, repetitions if isinstance(repetitions, list) else []) if value)
    return (known[0], known[(len(known) - 1) // 4] / known[0] - 1.0) if known else None


def _speed_changes(
    ordered: Sequence[CellResult], earlier: Sequence[PastRun], comparison: Mapping[str, Any] | None
) -> dict[str, list[Any]]:
    """By the number of a cell: `slower` or `faster`, and the ms before and now. A comparison knows it best.

    Without one, the fastest repetition must differ by more than a tenth from that of the last run that has the cell,
    and by more than the repetitions leave open, beside what all cells of the device have in common.
    """
    if comparison:
        judged = [one for one in comparison["speed"]["measurements"] if one["verdict"] in ("slower", "faster")]
        named = ("model", "device", "dtype", "weights")
        known = {tuple(one[name] for name in named): one for one in reversed(judged) if one["comparable"]}
        found = ((at, known.get(tuple(getattr(cell, name) for name in named))) for at, cell in enumerate(ordered))
        return {str(at): [one["verdict"], one["baseline_ms"], one["run_ms"]] for at, one in found if one}
    pairs: dict[int, tuple[tuple[float, float], tuple[float, float]]] = {}
    for at, result in enumerate(ordered):
        before = next((run.cells[result.key] for run in reversed(earlier) if result.key in run.cells), None)
        now = _fastest(result)
        if before is not None and before[1] == result.weights and before[-1] and now:
            pairs[at] = before[-1], now
    logs = {at: math.log(now[0] / before[0]) for at, (before, now) in pairs.items()}
    changes: dict[str, list[Any]] = {}
    for at, (before, now) in pairs.items():
        others = [log for one, log in logs.items() if ordered[one].device == ordered[at].device]
        own = logs[at] - (statistics.median(others) if len(others) >= _ENOUGH else 0.0)
        limit = max(math.log(_NOTICED), _UNCERTAINTIES * math.hypot(math.log1p(before[1]), math.log1p(now[1])))
        if abs(own) > limit:
            changes[str(at)] = ["slower" if own > 0 else "faster", before[0], now[0]]
    return changes


def _disturbed(results: Sequence[CellResult]) -> list[int]:
    """How many cells were timed while the fixed piece of work beside them was disturbed, and how many in all."""
    points = [point for point in map(_first_point, results) if point]
    return [sum(map(_is_disturbed, points)), len(points)]


def _is_disturbed(point: Mapping[str, Any]) -> bool:
    noise = point.get("noise")
    return isinstance(noise, Mapping) and (_number(noise.get("iqr_share")) or 0.0) > _BUSY


def _history(keys: Sequence[CellKey], earlier: Sequence[PastRun]) -> dict[str, list[list[Any]]]:
    """By the number of a cell, oldest first: run, status, weights, latency and error, each at 3 digits."""
    numbers = {str(status): number for number, status in enumerate(_STATUSES)}
    found: dict[str, list[list[Any]]] = {}
    for at, key in enumerate(keys):
        for run, each in enumerate(earlier):
            if key in each.cells:
                status, weights, latency, error = each.cells[key][:4]
                short = [None if value is None else float(f"{value:.3g}") for value in (latency, error)]
                found.setdefault(str(at), []).append([run, numbers[status], weights, *short])
    return found


def _gone(keys: set[CellKey], earlier: Sequence[PastRun]) -> dict[str, Any]:
    """Cells that the last run had and this one has not."""
    last = earlier[-1].cells if earlier else {}
    gone = [cell for key, cell in last.items() if key not in keys]
    shown = [[model, device, dtype, status] for status, _, _, _, model, device, dtype, _ in gone[:_GONE_SHOWN]]
    return {"number": len(gone), "cells": shown}


def _shown_of(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a comparison; `comparison.json` beside it has the rest."""
    sides = {name: {key: comparison[name][key] for key in _OF_A_SIDE} for name in ("baseline", "run")}
    speed = comparison["speed"]
    changed = [one for one in speed["measurements"] if one["verdict"] != "same"]
    lists = {"verdicts": comparison["verdicts"], "drift": comparison["drift"], "memory": comparison["memory"]}
    lists = {**lists, "speed": changed, "surroundings": comparison["surroundings"]}
    return {
        **sides,
        **{name: comparison[name] for name in ("worse", "fail_on", "passed")},
        "devices": speed["devices"],
        "compared": len(speed["measurements"]),
        "numbers": {name: len(entries) for name, entries in lists.items()},
        **{name: entries[:_CHANGES_SHOWN] for name, entries in lists.items()},
    }


def _counts(results: Iterable[CellResult]) -> dict[str, int]:
    return dict(Counter(str(result.status) for result in results))


def _present(versions: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(version) for name, version in versions.items() if version}


_MODEL_YEAR = re.compile(r"\s+(?:\d+-Core )?Processor$")


def machine_name(machine: Mapping[str, Any]) -> str:
    """Return a machine, as a header describes it, in a few words."""
    cpu = machine.get("cpu")
    name = cpu.get("name", "") if isinstance(cpu, Mapping) else cpu or ""
    cores = cpu.get("cores") if isinstance(cpu, Mapping) else machine.get("cores")
    return _MODEL_YEAR.sub("", str(name)) + (f", {cores} cores" if cores else "")
