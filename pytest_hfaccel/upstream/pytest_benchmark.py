"""pytest-benchmark, seen in 5.3.1: measurements of ours in its `benchmark` fixture, which makes its own only."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


def clock_of(benchmark: Any) -> Callable[[], float]:
    """Return the clock that `--benchmark-timer` names."""
    clock: Callable[[], float] = getattr(benchmark, "_timer", time.perf_counter)
    return clock


def recorded_seconds(benchmark: Any) -> list[float]:
    """Return the seconds of the rounds that the fixture has recorded."""
    return list(benchmark.stats.stats.data)


def take_entries(config: Any) -> bytes:
    """Take what the fixture has recorded in this process, for `add_entries` in another; empty where that is nothing.

    It keeps its entries to one process: under pytest-xdist it switches itself off.
    """
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return b""
    entries, session.benchmarks = session.benchmarks, []
    for entry in entries:
        entry.fixture = SimpleNamespace(has_error=entry.has_error)  # of the fixture no more is asked afterwards
        entry.options = {name: _name(value) if callable(value) else value for name, value in entry.options.items()}
    return pickle.dumps(entries)


def add_entries(config: Any, taken: bytes) -> None:
    """Add what `take_entries` took in a process that this one has started."""
    config._benchmarksession.benchmarks += pickle.loads(taken)  # noqa: S301 - from our own process


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or str(function)


def withdraw(benchmark: Any) -> None:
    """Leave nothing of an entry; a fixture that was not used at all would warn about that."""
    benchmark.has_error = True
    if benchmark.stats is None:
        benchmark.pedantic(lambda: None)
    if benchmark.stats is not None:
        benchmark.stats.stats.data.clear()
