"""pytest-benchmark, seen in 5.3.1: measurements of ours in its `benchmark` fixture, which makes its own only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def clock_of(benchmark: Any) -> Callable[[], float]:
    """Return the clock that `--benchmark-timer` names."""
    clock: Callable[[], float] = getattr(benchmark, "_timer", time.perf_counter)
    return clock


def recorded_seconds(benchmark: Any) -> list[float]:
    """Return the seconds of the rounds that the fixture has recorded."""
    return list(benchmark.stats.stats.data)


def withdraw(benchmark: Any) -> None:
    """Leave nothing of an entry; a fixture that was not used at all would warn about that."""
    benchmark.has_error = True
    if benchmark.stats is None:
        benchmark.pedantic(lambda: None)
    if benchmark.stats is not None:
        benchmark.stats.stats.data.clear()
