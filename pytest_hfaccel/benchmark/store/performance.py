"""A `Measurement` as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pytest_hfaccel.benchmark.measurement import Latency, Measurement, Noise
from pytest_hfaccel.benchmark.store.rows import as_json

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
