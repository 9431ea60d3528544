"""The numbers of a measurement that reports show beside the measurement itself."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement


def summary_of(measurement: Measurement) -> dict[str, Any]:
    """Return them by name; what is not known is left out."""
    latency = measurement.latency
    names = ("runs", "median_ms", "min_ms", "p5_ms", "p95_ms", "p99_ms", "iqr_ms", "relative_error")
    summary = {
        "batch": measurement.batch,
        "length": measurement.length,
        "weights": measurement.weights,
        **{name: getattr(latency, name) for name in names},
        "samples_per_second": measurement.samples_per_second,
        "memory_bytes": measurement.memory_bytes,
        "first_token_ms": measurement.first_token_ms,
        "per_token_ms": measurement.per_token_ms,
        "tokens_per_second": measurement.tokens_per_second,
        "use_cache": measurement.details.get("use_cache"),
    }
    return {name: value for name, value in summary.items() if value is not None}
