"""What a run record becomes in the tables, and how measurements come back out of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise
from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.history.recording import RunRecord
from pytest_hfaccel.history.schema import TABLES, columns_of
from pytest_hfaccel.reporting.plain import redact, to_plain

if TYPE_CHECKING:
    from pytest_hfaccel.core.prediction import Estimate, Prediction

Row = Mapping[str, Any]

MIB = 2**20
CLASS_LEVEL = "class"
"""The `device` of a cell whose checks need none."""

_LATENCY = tuple(each.name for each in fields(Latency))
_PLAIN = tuple(each.name for each in fields(Measurement) if each.name not in ("latency", "noise", "details"))
_NOISE = ("before_ms", "after_ms", "iqr_share", "throttled")
_CLOCK = ("clock_before_mhz", "clock_after_mhz")
COLUMNS = (*_PLAIN, *_LATENCY, *_NOISE, *_CLOCK, "details")
"""The columns of the view `measured_rows` that make up a measurement."""

_SAME_NAME = (
    "weights",
    "effective_dtype",
    "mode",
    "threads",
    "implementation",
    "family",
    "first_token_ms",
    "per_token_ms",
    "memory_bytes",
    "memory_source",
    "weight_bytes",
    "parameters",
)
_IN_BATCHES = ("median_ms", "min_ms", "p5_ms", "p95_ms", "p99_ms", "iqr_ms", "relative_error")

_GOOD = frozenset({Status.PASSED, Status.XPASSED})
# What happened to the run or to the hub, not to the model on the device.
_SAYS_NOTHING = frozenset(
    {
        *(Status.SKIPPED, Status.INCOMPLETE, Status.UNAVAILABLE, Status.GATED, Status.HUB_ERROR, Status.TIMEOUT),
        Status.INFRA_ERROR,
    }
)
_WITH_HINT = frozenset({Status.ERROR, Status.UNAVAILABLE, Status.OUT_OF_MEMORY, Status.GATED, Status.HUB_ERROR})
_BEFORE_RUN = frozenset({Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE})

_LEARNED = ("model_family", "modality", "parameters_million")
"""Columns of a model that a later run may know when an earlier one did not."""
_MODALITIES = {
    "text": "text",
    "seq2seq": "text",
    "image": "vision",
    "image-points": "vision",
    "speech": "audio",
}
"""By what a task's inputs are made of; those of more than one kind are `multimodal`."""


def utc(time: datetime | str) -> datetime:
    """Return a time as the database keeps it: in UTC, without a zone.

    Raises:
        ValueError: The text is not an ISO 8601 time.
    """
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def as_json(value: Any) -> str:
    """Return a value as the text of a JSON column: strict JSON, without secrets."""
    return json.dumps(to_plain(value), allow_nan=False)


def insert(connection: Any, table: str, rows: Sequence[Row]) -> list[int]:
    """Insert rows, all with the same columns, and return their numbers.

    One statement with a list per column: a statement per row takes a millisecond each.
    """
    if not rows:
        return []
    types = columns_of(connection, table)
    found = connection.execute(f"SELECT nextval('{table}_ids') FROM range(?)", [len(rows)])  # noqa: S608 - our names
    numbers = [number for (number,) in found.fetchall()]
    columns = [TABLES[table].number, *rows[0]]
    values = ", ".join(f"unnest(?::{types[name]}[])" for name in columns)
    lists = [numbers, *([row[name] for row in rows] for name in rows[0])]
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}", lists)
    return numbers


def write(connection: Any, record: RunRecord, *, run_key: str = "") -> int:
    """Write a run and its results, and return its `run_id`; `run_key` is its name in every database."""
    [run_id] = insert(connection, "test_runs", [_run_row(record, run_key or str(uuid.uuid4()))])
    models = _find_or_make(connection, "models", _model_rows(record))
    chips = {one.device: one.device_name for one in record.measurements}
    named = {(one.device, one.device_name) for one in record.measurements}
    named |= {(cell.device, chips.get(cell.device, "")) for cell in record.cells if cell.device != CLASS_LEVEL}
    devices = {each: _device_row(*each, record.machine) for each in sorted(named)}
    numbers = _find_or_make(connection, "hardware_platforms", devices.values())
    hardware = {each: numbers[_key("hardware_platforms", row)] for each, row in devices.items()}

    def keys(what: Measurement | CellResult, chip: str) -> dict[str, Any]:
        model = models[what.model, what.architecture]
        return {"run_id": run_id, "model_id": model, "hardware_id": hardware.get((what.device, chip))}

    results = [{**keys(one, one.device_name), **_result_row(one)} for one in record.measurements]
    measured = zip(insert(connection, "performance_results", results), record.measurements, strict=True)
    batches = [{"result_id": number, **_batch_row(one)} for number, one in measured]
    insert(connection, "performance_batch_results", batches)

    cells = [(cell, keys(cell, chips.get(cell.device, ""))) for cell in record.cells]
    compatibility = [{**ids, **_compatibility_row(cell)} for cell, ids in cells if cell.device != CLASS_LEVEL]
    insert(connection, "hardware_compatibility", compatibility)
    checks = [(check, {**ids, **_check_row(cell, check)}) for cell, ids in cells for check in cell.checks]
    tests = insert(connection, "integration_test_results", [row for _, row in checks])
    assertions = [
        {"test_result_id": number, **row}
        for number, (check, _) in zip(tests, checks, strict=True)
        for row in _assertion_rows(check)
    ]
    insert(connection, "integration_test_assertions", assertions)
    calibrations = [{"run_id": run_id, **calibration_row(each)} for each in record.calibrations]
    insert(connection, "device_calibrations", calibrations)
    return run_id


def measurement_of(row: Row) -> Measurement:
    """Rebuild a measurement from a row with `COLUMNS`, as the view and a Parquet file of measurements have it."""
    noise = Noise(
        row["before_ms"], row["after_ms"], row["iqr_share"], tuple(row[name] for name in _CLOCK), row["throttled"]
    )
    return Measurement(
        **{name: row[name] for name in _PLAIN},
        latency=Latency(**{name: row[name] for name in _LATENCY}),
        noise=noise,
        details=json.loads(row["details"]),
    )


_RUNS = """
SELECT run_id, test_name, test_type, started_at, completed_at, success, git_commit, command_line, versions, machine
FROM test_runs WHERE started_at IS NOT NULL AND (? IS NULL OR started_at < ?)
ORDER BY started_at DESC, run_id DESC LIMIT ?
"""
_CHECKS = """
SELECT
    i.test_module, i.cell, m.model_name, i.test_class, coalesce(h.device, ?), i.precision, i.weights, c.implementation,
    c.metadata, i.test_name, i.status, i.stage, coalesce(i.error_traceback, i.error_message), i.metadata,
    i.execution_time_seconds
FROM integration_test_results i
JOIN models m ON m.model_id = i.model_id
LEFT JOIN hardware_platforms h ON h.hardware_id = i.hardware_id
LEFT JOIN hardware_compatibility c
    ON (c.run_id, c.model_id, c.hardware_id) = (i.run_id, i.model_id, i.hardware_id) AND c.cell = i.cell
WHERE i.run_id = ? AND i.cell IS NOT NULL ORDER BY i.test_result_id
"""


def read_runs(connection: Any, count: int, before: datetime | None) -> list[RunRecord]:
    """Return the newest runs, the oldest first; see `BenchmarkDatabase.recent_runs`."""
    found = []
    for run in connection.execute(_RUNS, [before, before, count]).fetchall():
        run_id, name, kind, started, completed, success, commit, command, versions, machine = run
        query = f"SELECT {', '.join(COLUMNS)} FROM measured_rows WHERE run_id = ? ORDER BY result_id"  # noqa: S608
        rows = connection.execute(query, [run_id]).fetchall()
        found.append(
            RunRecord(
                test_name=name or "",
                test_type=kind or "",
                started_at=started.replace(tzinfo=UTC),
                completed_at=(completed or started).replace(tzinfo=UTC),
                success=bool(success),
                git_commit=commit or "",
                command_line=command or "",
                versions=json.loads(versions or "{}"),
                machine=json.loads(machine or "{}"),
                measurements=[measurement_of(dict(zip(COLUMNS, row, strict=True))) for row in rows],
                cells=_read_cells(connection, run_id),
            )
        )
    return found[::-1]


def _read_cells(connection: Any, run_id: int) -> list[CellResult]:
    cells: dict[tuple[str, str], CellResult] = {}
    for row in connection.execute(_CHECKS, [CLASS_LEVEL, run_id]).fetchall():
        module, cell, model, architecture, device, dtype, weights, implementation, metadata, *check = row
        name, status, stage, reason, measures, seconds = check
        if (module, cell) not in cells:
            identity = CellResult(cell, model, architecture or "", module or "", "", device, dtype or "", weights or "")
            identity.implementation = implementation or "real"
            identity.placement = json.loads(metadata or "{}").get("placement") or {}
            cells[module, cell] = identity
        plain = {"name": name, "status": status, "stage": stage, "reason": reason, "seconds": seconds or 0.0}
        cells[module, cell].checks.append(CheckOutcome.from_json({**plain, "measures": json.loads(measures or "{}")}))
    return list(cells.values())


def calibration_row(calibration: Any) -> dict[str, Any]:
    """Return the row of `device_calibrations`, without the number of its run.

    Args:
        calibration: Plain JSON with `device`, `device_name`, `dtype`, `threads`, `taken` and more, or what has that as
            its `to_json`.
    """
    data = calibration if isinstance(calibration, Mapping) else calibration.to_json()
    row = {name: data[name] for name in ("device", "device_name", "dtype", "threads")}
    return {**row, "taken_at": utc(data["taken"]), "payload": as_json(data)}


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """Return the row of `predictions`, without when, with what code and for which chip it was made."""
    question = prediction.question
    return {
        "model": question.model,
        "architecture": question.architecture,
        "family": question.family,
        "device": question.device,
        "batch_size": question.batch,
        "sequence_length": question.length,
        "precision": question.dtype,
        "mode": "training" if question.training else "inference",
        "source": str(prediction.source),
        "basis": prediction.basis,
        "measured_rows": prediction.rows,
        **_interval("latency", "ms", prediction.latency_ms),
        **_interval("memory", "mb", prediction.memory_mb),
        "fits": prediction.fits,
        "advice": prediction.advice,
        "details": as_json(prediction.details),
    }


def _interval(what: str, unit: str, estimate: Estimate | None) -> dict[str, float | None]:
    names = (f"{what}_{unit}", f"{what}_low_{unit}", f"{what}_high_{unit}")
    values = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip(names, values, strict=True))


def _run_row(record: RunRecord, run_key: str) -> dict[str, Any]:
    started, completed = utc(record.started_at), utc(record.completed_at)
    return {
        "test_name": record.test_name,
        "test_type": record.test_type,
        "started_at": started,
        "completed_at": completed,
        "execution_time_seconds": (completed - started).total_seconds(),
        "success": record.success,
        "git_commit": record.git_commit,
        "git_branch": record.git_branch,
        "command_line": redact(record.command_line),
        "run_key": run_key,
        "torch_version": record.versions.get("torch"),
        "transformers_version": record.versions.get("transformers"),
        "openvino_version": record.versions.get("openvino"),
        "plugin_version": record.versions.get("pytest-hfaccel"),
        "versions": as_json(record.versions),
        "machine": as_json(record.machine),
    }


def _device_row(device: str, name: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The row of `hardware_platforms`; of what `machine_facts` says, what changes from run to run is left out."""
    platform, _, release = str(machine.get("os", "")).partition(" ")
    eager = device.partition("+")[0]
    if eager == "cpu":
        facts: Mapping[str, Any] = machine.get("cpu", {})
    else:
        facts = next((each for each in machine.get("devices", ()) if each.get("device") == eager), {})
    memory = facts.get("memory_bytes")
    return {
        "hardware_type": kind_of(device),
        "device": device,
        "device_name": name or str(facts.get("name") or ""),
        "platform": platform,
        "platform_version": release,
        "driver_version": str(machine.get("drivers", {}).get(eager, "")),
        "memory_gb": round(memory / 2**30, 1) if memory else None,
        "compute_units": facts.get("cores"),
        "metadata": as_json({key: value for key, value in facts.items() if key != "available_bytes"}),
    }


def _model_rows(record: RunRecord) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def mention(name: str, architecture: str, task: str, family: str, parameters: int | None) -> None:
        empty = {"model_name": name, "architecture": architecture, **dict.fromkeys(_LEARNED)}
        row = rows.setdefault((name, architecture), empty)
        modality = _MODALITIES.get(TASKS[task].recipe, "multimodal") if task in TASKS else None
        learned = (family or None, modality, parameters / 1e6 if parameters else None)
        row.update({column: row[column] or value for column, value in zip(_LEARNED, learned, strict=True)})

    for one in record.measurements:
        # Tiny weights say nothing about the size of the model that bears the name.
        parameters = None if one.weights == Weights.TINY else one.parameters
        mention(one.model, one.architecture, one.task, one.family, parameters)
    for cell in record.cells:
        mention(cell.model, cell.architecture, cell.task, "", None)
    return list(rows.values())


def _result_row(measured: Measurement) -> dict[str, Any]:
    latency, noise = measured.latency, measured.noise
    return {
        "test_case": measured.task,
        "batch_size": measured.batch,
        "precision": measured.dtype,
        "total_time_seconds": latency.mean_ms * latency.runs / 1e3,
        "average_latency_ms": latency.mean_ms,
        "throughput_items_per_second": measured.samples_per_second,
        "memory_peak_mb": _mib(measured.memory_bytes),
        "iterations": latency.runs,
        "warmup_iterations": latency.warm_up,
        "metrics": as_json(measured.details),
        "sequence_length": measured.length,
        "load_seconds": measured.load_s,
        "convert_seconds": measured.convert_s,
        "compile_seconds": measured.compile_s,
        "noise_before_ms": noise.before_ms,
        "noise_after_ms": noise.after_ms,
        "noise_iqr_share": noise.iqr_share,
        **dict(zip(_CLOCK, noise.clock_mhz, strict=True)),
        "throttled": noise.throttled,
        **{name: getattr(measured, name) for name in _SAME_NAME},
    }


def _batch_row(measured: Measurement) -> dict[str, Any]:
    distribution = asdict(measured.latency)
    return {
        "batch_size": measured.batch,
        "average_latency_ms": measured.latency.mean_ms,
        "throughput_items_per_second": measured.samples_per_second,
        "memory_peak_mb": _mib(measured.memory_bytes),
        **{name: distribution[name] for name in _IN_BATCHES},
    }


def _mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


def _compatibility_row(result: CellResult) -> dict[str, Any]:
    """`compatibility_score` is the share of the checks with a verdict that passed; NULL without such a check."""
    verdicts = [check.status for check in result.checks if check.status not in _SAYS_NOTHING]
    is_good = result.status in _GOOD
    message, hint = (None, None) if is_good else _reason_and_hint(result)
    return {
        "is_compatible": None if result.status in _SAYS_NOTHING else is_good,
        "detection_success": result.status != Status.UNAVAILABLE,
        "initialization_success": _was_initialised(result),
        "error_message": _redacted(message),
        "error_type": None if is_good else str(result.status),
        "suggested_fix": _redacted(hint),
        "workaround_available": None if is_good else hint is not None,
        "compatibility_score": sum(status in _GOOD for status in verdicts) / len(verdicts) if verdicts else None,
        "metadata": as_json({"placement": result.placement, "timings": result.timings}),
        "cell": result.cell,
        "precision": result.dtype,
        "effective_dtype": result.placement.get("effective_dtype"),
        "weights": result.weights,
        "implementation": result.implementation,
    }


def _was_initialised(result: CellResult) -> bool | None:
    """Whether the model got as far as running; `None` when the run does not say."""
    if any(check.status in _GOOD for check in result.checks) or "load" in result.timings:
        return True
    if result.status in (Status.SKIPPED, Status.INCOMPLETE, Status.INFRA_ERROR) or result.stage is None:
        return None
    return result.stage not in _BEFORE_RUN


def _reason_and_hint(result: CellResult) -> tuple[str | None, str | None]:
    """Split the reason: errors of this package say the next step on a line of its own, the last one."""
    first, _, rest = (result.reason or "").partition("\n")
    has_hint = rest and "\n" not in rest and result.status in _WITH_HINT
    return (first, rest) if has_hint else (result.reason or None, None)


def _check_row(result: CellResult, check: CheckOutcome) -> dict[str, Any]:
    first, _, rest = (check.reason or "").partition("\n")
    return {
        "test_module": result.module,
        "test_class": result.architecture,
        "test_name": check.name,
        "status": str(check.status),
        "execution_time_seconds": check.seconds,
        "error_message": _redacted(first or None),
        "error_traceback": _redacted(check.reason if rest else None),
        "metadata": as_json(check.measures),
        "cell": result.cell,
        "stage": str(check.stage) if check.stage else None,
        "precision": result.dtype,
        "weights": result.weights,
    }


def _assertion_rows(check: CheckOutcome) -> Iterator[dict[str, Any]]:
    """The check's own verdict, then its claims about the model."""
    names = ("assertion_name", "passed", "expected_value", "actual_value", "message")
    if check.status not in _SAYS_NOTHING:
        verdict = (check.name, check.status in _GOOD, str(Status.PASSED), str(check.status), _redacted(check.reason))
        yield dict(zip(names, verdict, strict=True))
    claims = check.measures.get("claims", {})
    for claim, numbers in claims.items() if isinstance(claims, dict) else ():
        shown = as_json({key: value for key, value in numbers.items() if key != "holds"})
        yield dict(zip(names, (claim, bool(numbers["holds"]), "holds", shown, None), strict=True))


def _redacted(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _find_or_make(connection: Any, table: str, rows: Iterable[Row]) -> dict[tuple[Any, ...], int]:
    """Return the numbers of rows by their keys; what is there already is given what it lacks of `_LEARNED`."""
    wanted = {_key(table, row): row for row in rows}
    number = TABLES[table].number
    learned = _LEARNED if table == "models" else ()
    columns = (number, *TABLES[table].key, *learned)
    stored = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1 DESC").fetchall()  # noqa: S608
    here = {_key(table, row): row for row in (dict(zip(columns, values, strict=True)) for values in stored)}
    for key, row in wanted.items():
        known = here.get(key, {})
        for column in learned:
            if key in here and row[column] is not None and known[column] in (None, ""):
                query = f"UPDATE models SET {column} = ? WHERE model_id = ?"  # noqa: S608 - our own names
                connection.execute(query, [row[column], known[number]])
    missing = [key for key in wanted if key not in here]
    made = insert(connection, table, [wanted[key] for key in missing])
    return {**{key: here[key][number] for key in wanted if key in here}, **dict(zip(missing, made, strict=True))}


def _key(table: str, row: Row) -> tuple[Any, ...]:
    return tuple(row[column] for column in TABLES[table].key)
