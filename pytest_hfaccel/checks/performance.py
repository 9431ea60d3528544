"""Check `performance`: how fast the cell is, measured only where its results are right."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pytest_hfaccel.checks.base import CheckContext, passed, skipped
from pytest_hfaccel.checks.generation import NEW_TOKENS
from pytest_hfaccel.checks.parity import compare_with_reference
from pytest_hfaccel.results import CheckOutcome, Status

NAME = "performance"

_WARM_UP = 3
_LEAST_RUNS, _MOST_RUNS = 10, 500
_SECONDS = 1.0
"""Runs are repeated for this long, but never fewer than the least nor more than the most."""
_RIGHT = frozenset({Status.PASSED, Status.XPASSED})


def performance(context: CheckContext) -> CheckOutcome:
    """Latency percentiles and throughput of a forward pass, tokens per second of generation; only after parity."""
    if not _results_are_right(context):
        return skipped(NAME, "parity of this cell failed: the speed of wrong results is not measured")
    inputs = context.sample.forward
    times = measure(lambda: context.loaded.forward(inputs))
    measures = {**summary_of(times), "batch": context.sample.batch}
    measures["samples_per_second"] = context.sample.batch / statistics.median(times)
    return passed(NAME, **measures, **_generation_speed(context))


def measure(run: Callable[[], Any], *, seconds: float = _SECONDS) -> list[float]:
    """Return the seconds of repeated runs, after warming up.

    Args:
        run: Does the work and returns when it is done.
        seconds: How long to go on measuring; at least 10 runs are made, at most 500.
    """
    for _ in range(_WARM_UP):
        run()
    times: list[float] = []
    while len(times) < _LEAST_RUNS or (sum(times) < seconds and len(times) < _MOST_RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


def summary_of(times: list[float]) -> dict[str, float | int]:
    """Return the distribution of run times in milliseconds: order statistics, because means follow the outliers."""
    percentiles = statistics.quantiles(times, n=100, method="inclusive")
    quartiles = statistics.quantiles(times, n=4, method="inclusive")
    return {
        "runs": len(times),
        "median_ms": 1e3 * statistics.median(times),
        "min_ms": 1e3 * min(times),
        "p5_ms": 1e3 * percentiles[4],
        "p95_ms": 1e3 * percentiles[94],
        "p99_ms": 1e3 * percentiles[98],
        "iqr_ms": 1e3 * (quartiles[2] - quartiles[0]),
    }


def _results_are_right(context: CheckContext) -> bool:
    outcome = context.outcome_of("parity")
    if outcome is None:
        return compare_with_reference(context, context.loaded).ok
    return outcome.status in _RIGHT


def _generation_speed(context: CheckContext) -> dict[str, Any]:
    inputs = context.sample.generate
    if inputs is None:
        return {}
    for use_cache in (True, False):
        try:
            times = measure(
                lambda cached=use_cache: context.loaded.generate(  # type: ignore[misc]
                    inputs, max_new_tokens=NEW_TOKENS, use_cache=cached
                )
            )
        except NotImplementedError:
            continue
        tokens = NEW_TOKENS * context.sample.batch
        return {
            "tokens_per_second": tokens / statistics.median(times),
            "generate_median_ms": 1e3 * statistics.median(times),
            "use_cache": use_cache,
        }
    return {}
