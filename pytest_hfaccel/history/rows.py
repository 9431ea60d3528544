"""Records and rows of the database: runs, measurements, cells, calibrations, predictions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Weights
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.history.connection import pandas
from pytest_hfaccel.history.schema import TABLES, VIEWS, columns_of
from pytest_hfaccel.reporting.plain import redact, to_plain

if TYPE_CHECKING:
    from pytest_hfaccel.core.prediction import Estimate, Prediction


class HasJson(Protocol):
    """A record with a plain-JSON form."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""


Calibration = HasJson | Mapping[str, Any]
"""A calibration, or its plain-JSON form: `device`, `device_name`, `dtype`, `threads`, `taken` and more."""


@dataclass(frozen=True)
class RunRecord:
    """A run and all it found; it is written to the database as a whole or not at all.

    Attributes:
        test_name: What ran, e.g. `hfaccel bench`.
        test_type: Which kind of run: `integration`, `performance`, ...
        started_at: When it began: a time (without a zone it is UTC) or its ISO 8601 text.
        completed_at: When it ended, likewise.
        success: Whether nothing failed.
        git_commit: Commit of the code under test; empty where there is none.
        git_branch: Its branch.
        command_line: How the run was started.
        versions: By package; `None` for one that is not installed.
        machine: Facts of the machine as `pytest_hfaccel.hardware.machine_facts` returns them.
        measurements: What was measured.
        cells: What happened to the cells.
        calibrations: The calibrations the run took.
    """

    test_name: str
    test_type: str
    started_at: datetime | str
    completed_at: datetime | str
    success: bool
    git_commit: str = ""
    git_branch: str = ""
    command_line: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    cells: Sequence[CellResult] = ()
    calibrations: Sequence[Calibration] = ()


@dataclass(frozen=True)
class StoredModel:
    """A trained prediction model as the database keeps it.

    Attributes:
        name: Its name.
        trained_at: When, in UTC.
        rows: Measured rows it was trained on.
        metrics: Plain JSON: how good it is.
        payload: The model in its own format. The database never unpickles it; whoever does must trust the file.
        versions: Versions of the packages it was written with.
    """

    name: str
    trained_at: datetime
    rows: int
    metrics: dict[str, Any]
    payload: bytes
    versions: dict[str, Any] = field(default_factory=dict)


def utc(time: datetime | str) -> datetime:
    """Return a time as the database keeps it: in UTC, without a zone.

    Raises:
        ValueError: The text is not an ISO 8601 time.
    """
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def insert(connection: Any, table: str, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows, all with the same columns, and return their numbers.

    One statement with a list per column: a statement per row takes a millisecond each.
    """
    if not rows:
        return []
    types = columns_of(connection, table)
    names = list(rows[0])
    numbers = _next_ids(connection, table, len(rows))
    columns = [TABLES[table].number, *names]
    values = ", ".join(f"unnest(?::{types[name]}[])" for name in columns)
    lists = [numbers, *([row[name] for row in rows] for name in names)]
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}", lists)
    return numbers


def as_json(value: Any) -> str:
    """Return a value as the text of a JSON column: strict JSON, without secrets."""
    return json.dumps(to_plain(value), allow_nan=False)


def _next_ids(connection: Any, table: str, count: int) -> list[int]:
    found = connection.execute(f"SELECT nextval('{table}_ids') FROM range(?)", [count])  # noqa: S608 - our names
    return [number for (number,) in found.fetchall()]


def device_row(device: str, name: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of `hardware_platforms`, as far as the facts tell.

    Args:
        device: Device id.
        name: The chip; empty where only the facts may know it.
        machine: What `pytest_hfaccel.hardware.machine_facts` returned.
    """
    platform, _, release = str(machine.get("os", "")).partition(" ")
    facts = _facts(device, machine)
    memory = facts.get("memory_bytes")
    return {
        "hardware_type": device.partition(":")[0],
        "device": device,
        "device_name": name or str(facts.get("name") or ""),
        "platform": platform,
        "platform_version": release,
        "driver_version": str(machine.get("drivers", {}).get(device, "")),
        "memory_gb": round(memory / 2**30, 1) if memory else None,
        "compute_units": facts.get("cores"),
        "metadata": as_json(facts),
    }


def _facts(device: str, machine: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the machine's facts say of a device; without what changes from run to run."""
    if device == "cpu":
        facts: Mapping[str, Any] = machine.get("cpu", {})
    else:
        facts = next((each for each in machine.get("devices", ()) if each.get("device") == device), {})
    return {key: value for key, value in facts.items() if key != "available_bytes"}


MIB = 2**20

_LATENCY = tuple(each.name for each in fields(Latency))
_PLAIN = tuple(each.name for each in fields(Measurement) if each.name not in ("latency", "noise", "details"))
_NOISE = ("before_ms", "after_ms", "iqr_share", "throttled")
_CLOCK = ("clock_before_mhz", "clock_after_mhz")
COLUMNS = (*_PLAIN, *_LATENCY, *_NOISE, *_CLOCK, "details")
"""The columns of the view `measured_rows` that make up a measurement."""


def result_row(measured: Measurement) -> dict[str, Any]:
    """Return the row of `performance_results`, without the keys of other tables."""
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
        "clock_before_mhz": noise.clock_mhz[0],
        "clock_after_mhz": noise.clock_mhz[1],
        "throttled": noise.throttled,
        **{name: getattr(measured, name) for name in _SAME_NAME},
    }


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


def batch_row(measured: Measurement) -> dict[str, Any]:
    """Return the row of `performance_batch_results`, without the number of its result."""
    distribution = asdict(measured.latency)
    for counted in ("runs", "warm_up", "mean_ms"):
        del distribution[counted]
    return {
        "batch_size": measured.batch,
        "average_latency_ms": measured.latency.mean_ms,
        "throughput_items_per_second": measured.samples_per_second,
        "memory_peak_mb": _mib(measured.memory_bytes),
        **distribution,
    }


def measurement_of(row: Mapping[str, Any]) -> Measurement:
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


def _mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


_GOOD = frozenset({Status.PASSED, Status.XPASSED})
# What happened to the run or to the hub, not to the model on the device.
_SAYS_NOTHING = frozenset(
    {Status.SKIPPED, Status.INCOMPLETE, Status.UNAVAILABLE, Status.GATED, Status.HUB_ERROR, Status.TIMEOUT}
)
_BEFORE_RUN = frozenset({Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE})


def compatibility_row(result: CellResult) -> dict[str, Any]:
    """Return the row of `hardware_compatibility`, without the keys of other tables.

    `compatibility_score` is the share of the checks with a verdict that passed; NULL without such a check.
    """
    verdicts = [check.status for check in result.checks if check.status not in _SAYS_NOTHING]
    message, hint = _reason_and_hint(result)
    return {
        "is_compatible": None if result.status in _SAYS_NOTHING else result.status in _GOOD,
        "detection_success": result.status != Status.UNAVAILABLE,
        "initialization_success": _was_initialised(result),
        "error_message": _redacted(message),
        "error_type": None if result.status in _GOOD else str(result.status),
        "suggested_fix": _redacted(hint),
        "workaround_available": None if result.status in _GOOD else hint is not None,
        "compatibility_score": sum(status in _GOOD for status in verdicts) / len(verdicts) if verdicts else None,
        "metadata": as_json({"placement": result.placement, "timings": result.timings}),
        "cell": result.cell,
        "precision": result.dtype,
        "effective_dtype": result.placement.get("effective_dtype"),
        "weights": result.weights,
        "implementation": result.implementation,
    }


def check_rows(result: CellResult) -> list[dict[str, Any]]:
    """Return the rows of `integration_test_results`, one per check, without the keys of other tables."""
    return [
        {
            "test_module": result.module,
            "test_class": result.architecture,
            "test_name": check.name,
            "status": str(check.status),
            "execution_time_seconds": check.seconds,
            "error_message": _redacted((check.reason or "").partition("\n")[0] or None),
            "error_traceback": _redacted(check.reason if check.reason and "\n" in check.reason else None),
            "metadata": as_json(check.measures),
            "cell": result.cell,
            "stage": str(check.stage) if check.stage else None,
            "precision": result.dtype,
            "weights": result.weights,
        }
        for check in result.checks
    ]


def assertion_rows(check: CheckOutcome) -> Iterator[dict[str, Any]]:
    """Yield the rows of `integration_test_assertions`: the check's own verdict, then its claims about the model."""
    if check.status not in _SAYS_NOTHING:
        yield _assertion(check.name, check.status in _GOOD, Status.PASSED, check.status, check.reason)
    claims = check.measures.get("claims", {})
    for claim, numbers in claims.items() if isinstance(claims, dict) else ():
        shown = {key: value for key, value in numbers.items() if key != "holds"}
        yield _assertion(claim, bool(numbers["holds"]), "holds", as_json(shown), None)


def _assertion(name: str, passed: bool, expected: str, actual: str, message: str | None) -> dict[str, Any]:
    return {
        "assertion_name": name,
        "passed": passed,
        "expected_value": str(expected),
        "actual_value": str(actual),
        "message": _redacted(message),
    }


def _redacted(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _was_initialised(result: CellResult) -> bool | None:
    """Whether the model got as far as running; `None` when the run does not say."""
    if any(check.status in _GOOD for check in result.checks) or "load" in result.timings:
        return True
    if result.status in (Status.SKIPPED, Status.INCOMPLETE) or result.stage is None:
        return None
    return result.stage not in _BEFORE_RUN


def _reason_and_hint(result: CellResult) -> tuple[str | None, str | None]:
    """Split the reason: errors of this package say the next step on a line of its own, the last one."""
    if result.status in _GOOD or not result.reason:
        return None, None
    first, _, rest = result.reason.partition("\n")
    is_error = result.status in (Status.ERROR, Status.UNAVAILABLE, Status.OUT_OF_MEMORY, Status.GATED, Status.HUB_ERROR)
    return (first, rest) if rest and is_error and "\n" not in rest else (result.reason, None)


def calibration_row(calibration: Calibration) -> dict[str, Any]:
    """Return the row of `device_calibrations`, without the number of its run."""
    data = calibration if isinstance(calibration, Mapping) else calibration.to_json()
    return {
        "device": data["device"],
        "device_name": data["device_name"],
        "dtype": data["dtype"],
        "threads": data["threads"],
        "taken_at": utc(data["taken"]),
        "payload": as_json(data),
    }


def read_calibrations(connection: Any, filters: Mapping[str, str | int | None]) -> list[dict[str, Any]]:
    """Return the plain-JSON forms of the calibrations that fit, the newest first."""
    asked = {column: value for column, value in filters.items() if value is not None}
    where = " AND ".join(["true", *(f"{column} = ?" for column in asked)])
    query = f"SELECT payload FROM device_calibrations WHERE {where} ORDER BY taken_at DESC, calibration_id DESC"  # noqa: S608
    return [json.loads(payload) for (payload,) in connection.execute(query, list(asked.values())).fetchall()]


def prediction_rows(
    predictions: Sequence[Prediction],
    *,
    created_at: datetime | str,
    git_commit: str,
    device_name: str,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Return the rows of `predictions`.

    What a prediction's `details` say under `device_name` and `threads` goes before what is said of all of them.
    """
    said = {"created_at": utc(created_at), "git_commit": git_commit}
    return [
        {
            **said,
            "device_name": str(each.details.get("device_name", device_name)),
            "threads": each.details.get("threads", threads),
            **_question(each),
            **_answer(each),
        }
        for each in predictions
    ]


def _question(prediction: Prediction) -> dict[str, Any]:
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
    }


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {
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


def model_row(
    name: str,
    payload: bytes,
    *,
    rows: int,
    metrics: Mapping[str, Any],
    versions: Mapping[str, Any],
    trained_at: datetime | str,
) -> dict[str, Any]:
    """Return the row of `prediction_models`."""
    return {
        "name": name,
        "trained_at": utc(trained_at),
        "rows": rows,
        "metrics": as_json(metrics),
        "versions": as_json(versions),
        "payload": payload,
    }


def read_model(connection: Any, name: str) -> StoredModel | None:
    """Return the newest prediction model of a name."""
    found = connection.execute(
        "SELECT name, trained_at, rows, metrics, payload, versions FROM prediction_models WHERE name = ? "
        "ORDER BY trained_at DESC, prediction_model_id DESC LIMIT 1",
        [name],
    ).fetchone()
    if found is None:
        return None
    name, trained_at, rows, metrics, payload, versions = found
    return StoredModel(name, trained_at, rows, json.loads(metrics), bytes(payload), json.loads(versions))


CLASS_LEVEL = "class"
"""The `device` of a cell whose checks need none."""

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

Key = tuple[Any, ...]


class Subjects:
    """The rows of the models and devices of one run, made where they are missing; inside one transaction."""

    def __init__(self, connection: Any, record: RunRecord) -> None:
        self._names = {one.device: one.device_name for one in record.measurements}
        named = {(one.device, one.device_name) for one in record.measurements}
        named |= {self._named(cell.device) for cell in record.cells if cell.device != CLASS_LEVEL}
        devices = {one: device_row(*one, record.machine) for one in sorted(named)}
        numbers = _found_or_made(connection, "hardware_platforms", devices.values())
        self._devices = {one: numbers[_key("hardware_platforms", row)] for one, row in devices.items()}
        self._models = _found_or_made(connection, "models", _model_rows(record))

    def model(self, name: str, architecture: str) -> int:
        """Return the `model_id` of a model of the run."""
        return self._models[name, architecture]

    def device(self, device: str, name: str) -> int:
        """Return the `hardware_id` of a device that was measured, by its id and chip."""
        return self._devices[device, name]

    def device_of_cell(self, device: str) -> int | None:
        """Return the `hardware_id` of a cell's device; `None` for a cell whose checks need none."""
        return None if device == CLASS_LEVEL else self._devices[self._named(device)]

    def _named(self, device: str) -> tuple[str, str]:
        return device, self._names.get(device, "")


def _model_rows(record: RunRecord) -> list[dict[str, Any]]:
    rows: dict[Key, dict[str, Any]] = {}
    for name, architecture, task, family, parameters in _mentions(record):
        empty: dict[str, Any] = {"model_name": name, "architecture": architecture, **dict.fromkeys(_LEARNED)}
        row = rows.setdefault((name, architecture), empty)
        said = (family or None, _modality(task), parameters / 1e6 if parameters else None)
        row.update({column: row[column] or value for column, value in zip(_LEARNED, said, strict=True)})
    return list(rows.values())


def _mentions(record: RunRecord) -> Iterator[tuple[str, str, str, str, int | None]]:
    for one in record.measurements:
        # Tiny weights say nothing about the size of the model that bears the name.
        yield one.model, one.architecture, one.task, one.family, None if one.weights == Weights.TINY else one.parameters
    for cell in record.cells:
        yield cell.model, cell.architecture, cell.task, "", None


def _modality(task: str) -> str | None:
    return _MODALITIES.get(TASKS[task].recipe, "multimodal") if task in TASKS else None


def _found_or_made(connection: Any, table: str, rows: Iterable[dict[str, Any]]) -> dict[Key, int]:
    """Return the numbers of rows by their keys, of those that were there already and of those made now."""
    wanted = {_key(table, row): row for row in rows}
    learned = _LEARNED if table == "models" else ()
    columns = (TABLES[table].number, *TABLES[table].key, *learned)
    found = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1 DESC").fetchall()  # noqa: S608
    here = {tuple(row[1 : 1 + len(TABLES[table].key)]): dict(zip(columns, row, strict=True)) for row in found}
    for key in wanted.keys() & here.keys():
        _fill_in(connection, here[key], {column: wanted[key][column] for column in learned})
    missing = wanted.keys() - here.keys()
    ordered = [key for key in wanted if key in missing]
    made = dict(zip(ordered, insert(connection, table, [wanted[key] for key in ordered]), strict=True))
    return {key: made[key] if key in made else here[key][TABLES[table].number] for key in wanted}


def _fill_in(connection: Any, known: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    for column, value in said.items():
        if value is not None and known[column] in (None, ""):
            query = f"UPDATE models SET {column} = ? WHERE model_id = ?"  # noqa: S608 - our own names
            connection.execute(query, [value, known["model_id"]])


def _key(table: str, row: Mapping[str, Any]) -> Key:
    return tuple(row[column] for column in TABLES[table].key)


_MARKS = {"model", "architecture", "device_name", "latency", "noise"}
"""What a JSON object has when it is a measurement."""


def measurements_in(data: Any) -> Iterator[Measurement]:
    """Yield the measurements in a plain-JSON value, wherever they are.

    Raises:
        ConfigError: What looks like a measurement lacks something, or has something else in its place.
    """
    if isinstance(data, dict) and set(data) >= _MARKS:
        try:
            yield Measurement.from_json(data)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a measurement of {data['model']!r} is not complete: {type(error).__name__}: {error}",
                hint="Was it written by another version of pytest-hfaccel? Measure again, or move the file away.",
            ) from error
    elif isinstance(data, dict | list | tuple):
        for value in data.values() if isinstance(data, dict) else data:
            yield from measurements_in(value)


def write(connection: Any, record: RunRecord, *, run_key: str = "") -> int:
    """Write a run and all it found, and return its `run_id`; `run_key` is its name in every database."""
    [run_id] = insert(connection, "test_runs", [_run_row(record, run_key or str(uuid.uuid4()))])
    subjects = Subjects(connection, record)
    _write_measurements(connection, run_id, record, subjects)
    _write_cells(connection, run_id, record, subjects)
    insert(
        connection, "device_calibrations", [{"run_id": run_id, **calibration_row(each)} for each in record.calibrations]
    )
    return run_id


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


def _write_measurements(connection: Any, run_id: int, record: RunRecord, subjects: Subjects) -> None:
    results = [
        {
            "run_id": run_id,
            "model_id": subjects.model(one.model, one.architecture),
            "hardware_id": subjects.device(one.device, one.device_name),
            **result_row(one),
        }
        for one in record.measurements
    ]
    numbers = insert(connection, "performance_results", results)
    batches = [
        {"result_id": number, **batch_row(one)} for number, one in zip(numbers, record.measurements, strict=True)
    ]
    insert(connection, "performance_batch_results", batches)


def _write_cells(connection: Any, run_id: int, record: RunRecord, subjects: Subjects) -> None:
    compatibility, tests = [], []
    for cell in record.cells:
        hardware = subjects.device_of_cell(cell.device)
        keys = {"run_id": run_id, "model_id": subjects.model(cell.model, cell.architecture), "hardware_id": hardware}
        if hardware is not None:
            compatibility.append({**keys, **compatibility_row(cell)})
        tests += [{**keys, **row} for row in check_rows(cell)]
    insert(connection, "hardware_compatibility", compatibility)
    _write_assertions(connection, insert(connection, "integration_test_results", tests), record.cells)


def _write_assertions(connection: Any, tests: Sequence[int], cells: Sequence[CellResult]) -> None:
    checks = [check for cell in cells for check in cell.checks]
    rows = [
        {"test_result_id": number, **row}
        for number, check in zip(tests, checks, strict=True)
        for row in assertion_rows(check)
    ]
    insert(connection, "integration_test_assertions", rows)


NAMES = ("schema_version", *TABLES, *VIEWS)


def read_measurements(
    connection: Any, filters: Mapping[str, Any], *, only_real_dimensions: bool, relation: str = "measured_rows"
) -> list[Measurement]:
    """Return the measurements that fit, in the order in which they were written.

    Filters are columns of `measured_rows` with the wanted value, `None` for any; `relation` is that view, or a Parquet
    file with its columns.
    """
    asked = {column: value for column, value in filters.items() if value is not None}
    conditions = ["true", *(f"{column} = ?" for column in asked)]
    if only_real_dimensions:
        conditions.append(f"weights <> '{Weights.TINY}'")
    query = f"SELECT {', '.join(COLUMNS)} FROM {relation} WHERE {' AND '.join(conditions)} ORDER BY run_id, result_id"  # noqa: S608
    found = connection.execute(query, list(asked.values())).fetchall()
    return [measurement_of(dict(zip(COLUMNS, row, strict=True))) for row in found]


def read_frame(connection: Any, name: str) -> Any:
    """Return a table or a view as a pandas frame, in the order of its rows' numbers.

    Raises:
        ConfigError: There is no such table or view.
    """
    if name not in NAMES:
        raise ConfigError(
            f"{name!r} is no table or view of the benchmark database. Allowed: {', '.join(NAMES)}.",
            hint="For anything else, write a query: BenchmarkDatabase.sql('SELECT ...').",
        )
    order = VIEWS.get(name) or (TABLES[name].number if name in TABLES else "version")
    return query_frame(connection, f"SELECT * FROM {name} ORDER BY {order}")  # noqa: S608 - one of our names


def query_frame(connection: Any, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
    """Return the answer to a query as a pandas frame."""
    pandas()
    return connection.execute(query, parameters or None).df()
