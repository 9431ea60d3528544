"""Training on measured rows, and how far held-out predictions err. Imports scikit-learn: import this file late."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.prediction import INTERVAL
from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
from pytest_hfaccel.predict.learning.models import (
    Array,
    DeviceModel,
    LatencyModel,
    MemoryModel,
    Row,
    TrainedModels,
    point_of,
)
from pytest_hfaccel.predict.text import MIB
from pytest_hfaccel.tracing.traces import trace_of

_MOST_FOLDS = 8


def held_out_log_errors(
    rows: Sequence[Row], predict: Callable[[list[Row], list[Row]], Array], measured: Callable[[Row], float]
) -> Array:
    """Return the logarithms of measured / predicted of rows that were predicted from their non-relatives."""
    groups = [row.relatives for row in rows]
    errors = []
    for others, held_out in GroupKFold(min(_MOST_FOLDS, len(set(groups)))).split(groups, groups=groups):
        held = [rows[index] for index in held_out]
        predicted = predict([rows[index] for index in others], held)
        errors.append(np.log(np.array([measured(row) for row in held]) / predicted))
    return np.concatenate(errors)


def interval_factors(log_errors: Array, share: float = INTERVAL) -> tuple[float, float]:
    """Return the factors below and above a prediction between which a share of the measured values lies.

    The quantiles of held-out errors, as in cross-conformal prediction (Vovk 2015, "Cross-conformal predictors").
    """
    tail = (1.0 - share) / 2.0
    low, high = np.quantile(log_errors, [tail, 1.0 - tail])
    return float(np.exp(min(low, 0.0))), float(np.exp(max(high, 0.0)))


LEAST_ROWS, LEAST_RELATIVES = 20, 5
"""Fewer rows, or of fewer kinds of models, teach more about those models than about the device."""

Dims = Callable[[Measurement], Mapping[str, Any] | None]


def carried_dims(measurement: Measurement) -> Mapping[str, Any] | None:
    """Return the config fields that a row itself states; `None` where it states none."""
    dims = measurement.details.get("dims")
    return dims if isinstance(dims, Mapping) else None


def train(
    measurements: Iterable[Measurement],
    calibrations: Sequence[DeviceCalibration],
    cache_dir: Path,
    dims_of: Dims = carried_dims,
) -> TrainedModels:
    """Train a model for each device, dtype, number of threads and mode that has enough rows."""
    groups: dict[tuple[str, str, int, bool], list[Measurement]] = defaultdict(list)
    for one in measurements:
        if one.weights != "tiny" and one.implementation == "real":
            groups[one.device, one.dtype, one.threads, one.mode == "training"].append(one)
    trained = TrainedModels()
    for (device, dtype, threads, training), group in groups.items():
        what, wanted = f"{device} at {dtype} with {threads} threads", (device, dtype, threads)
        matching = [one for one in calibrations if (one.device, one.dtype, one.threads) == wanted]
        if not matching:
            trained.left_out.append(f"{what}: {len(group)} rows, but no calibration (hfaccel calibrate {device})")
            continue
        rows = rows_of(group, matching[0], cache_dir, dims_of)
        if _are_enough(rows):
            trained.models.append(fit(rows, matching[0], training=training))
        else:
            trained.left_out.append(
                f"{what}: {len(rows)} rows of {_kinds(rows)} kinds of models; {LEAST_ROWS} rows of "
                f"{LEAST_RELATIVES} kinds are needed"
            )
    return trained


def _kinds(rows: Iterable[Row]) -> int:
    return len({row.relatives for row in rows})


def _are_enough(rows: Sequence[Row]) -> bool:
    return len(rows) >= LEAST_ROWS and _kinds(rows) >= LEAST_RELATIVES


def fit(rows: Sequence[Row], calibration: DeviceCalibration, *, training: bool = False) -> DeviceModel:
    """Train on rows of one device, and learn from held-out rows how wide the intervals must be."""

    def latency(others: list[Row], held: list[Row]) -> Array:
        return LatencyModel(calibration).fit(others).predict([row.point for row in held])

    def memory(others: list[Row], held: list[Row]) -> Array:
        return MemoryModel().fit(others).predict([row.point for row in held])

    errors = held_out_log_errors(rows, latency, lambda row: row.seconds)
    known = [row for row in rows if row.memory_bytes]
    memory_errors = held_out_log_errors(known, memory, _mib) if _are_enough(known) else None
    return DeviceModel(
        calibration=calibration,
        training=training,
        latency=LatencyModel(calibration).fit(rows),
        memory=MemoryModel().fit(known) if memory_errors is not None else None,
        latency_interval=interval_factors(errors),
        memory_interval=interval_factors(memory_errors) if memory_errors is not None else None,
        rows=len(rows),
        relatives=_kinds(rows),
        trained=datetime.now(UTC).isoformat(timespec="seconds"),
        latency_error=_mean_error(errors),
        memory_error=_mean_error(memory_errors) if memory_errors is not None else None,
    )


def rows_of(
    measurements: Iterable[Measurement], calibration: DeviceCalibration, cache_dir: Path, dims_of: Dims
) -> list[Row]:
    """Trace the models of measured rows; what cannot be traced teaches nothing and is left out."""
    roofline = OperatorRoofline(calibration)
    rows = []
    for one in measurements:
        dims = dims_of(one)
        if dims is None:
            continue
        try:
            trace = trace_of(
                one.architecture,
                dims,
                batch=one.batch,
                length=max(1, one.length),
                dtype=one.dtype,
                training=one.mode == "training",
                cache_dir=cache_dir,
            )
        except HfAccelError:
            continue
        point = point_of(trace, roofline)
        rows.append(Row(point, one.latency.median_ms / 1e3, one.memory_bytes, relatives_of(one)))
    return rows


_HEAD = re.compile(r"(For[A-Z]|LMHead|Model$|MT)")


def relatives_of(measurement: Measurement) -> str:
    """Return the group a row's architecture belongs to: what the row says, else its class without the head."""
    said = measurement.details.get("relatives")
    return str(said) if said else _HEAD.split(measurement.architecture)[0]


def _mib(row: Row) -> float:
    return float(row.memory_bytes or 0) / MIB


def _mean_error(log_errors: Array) -> float:
    """Mean of |predicted - measured| / measured, from the logarithms of measured / predicted."""
    return float(np.abs(np.exp(-log_errors) - 1.0).mean())
