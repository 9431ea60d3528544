"""Time a function until its median is known well enough: warm-up until stable, then as many runs as the noise needs.

How many runs a measurement needs depends on the machine's noise, so a fixed number is too many for one model and too
few for another. See T. Hoefler and R. Belli, "Scientific Benchmarking of Parallel Computing Systems", SC'15, whose
rules are followed here: the median with its confidence interval, and the number of runs chosen by that interval.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pytest_hfaccel.benchmark.measurement import Latency

Clock = Callable[[], float]

_WINDOW_RUNS = 3
_WINDOW_SECONDS = 0.02
"""A window of the warm-up has at least so many runs and takes at least so long: a few runs of 50 microseconds each
agree before the clock has risen."""
_STABLE = 0.03
"""Successive windows whose medians differ by less than this share are called stable: the noise of a quiet machine
(FINDINGS.md: an interquartile range of 3 % of the median)."""
_LEAST_SLOW_RUNS = 3
"""Runs that are too slow for the time limit are made at least so often."""
_GROWTH = 10
"""The interval is computed again after ten percent more runs."""

BLOCK_MINIMA = "block_minima_ms"
"""Among a measurement's details: the repetitions as they are kept, see `block_minima`."""
CPU_SHARE = "cpu_seconds_per_second"
"""Likewise: how much CPU time the process had per second of the timed runs; about 1 for one thread on a free core."""
_BLOCKS = 32
_DIGITS = 5


@dataclass(frozen=True)
class TimingBudget:
    """Limits on the timing of one measurement.

    Attributes:
        relative_error: Half the width of the median's 95 % confidence interval, as a share of the median, that is
            good enough.
        least_seconds: Timed runs take at least so long, unless `max_runs` or `max_seconds` is less. What else the
            machine does comes and goes within tenths of a second, and only a measurement that outlasts it has
            undisturbed runs: see docs/comparing_runs.md.
        floor_error: The fastest run counts as known once a quarter of the blocks (see `block_minima`) came that near to
            it, as a share of its time. Until then more runs are made.
        floor_seconds: Timed runs do not go on for that beyond this long.
        max_seconds: Timed runs end after this long, even if that has not been reached.
        least_runs: Fewest timed runs, unless they are too slow for the time limit. Below 6 runs the extremes do not
            hold the median with 95 % confidence (2 x 0.5^5 = 6 %).
        max_runs: Most timed runs.
        warm_up_seconds: The warm-up ends after this long, stable or not.
        warm_up: Number of warm-up runs, where the user fixes it.
        runs: Number of timed runs, where the user fixes it.
    """

    relative_error: float = 0.02
    least_seconds: float = 0.5
    floor_error: float = 0.02
    floor_seconds: float = 2.0
    max_seconds: float = 3.0
    least_runs: int = 7
    max_runs: int = 3000
    warm_up_seconds: float = 1.0
    warm_up: int | None = None
    runs: int | None = None


def time_runs(
    run: Callable[[], Any], budget: TimingBudget = TimingBudget(), clock: Clock = time.perf_counter
) -> Latency:
    """Warm up, then run until the median is known to the stated relative error, or a limit is reached."""
    warm_up = warm_up_runs(run, budget, clock)
    return latency_of(timed_runs(run, budget, clock), warm_up)


def warm_up_runs(run: Callable[[], Any], budget: TimingBudget, clock: Clock = time.perf_counter) -> int:
    """Run until the medians of two successive windows agree; return the number of runs.

    Caches, lazily compiled kernels and the clock of the processor settle in the first runs.
    """
    if budget.warm_up is not None:
        for _ in range(budget.warm_up):
            run()
        return budget.warm_up
    count, began, previous = 0, clock(), None
    while True:
        window: list[float] = []
        while len(window) < _WINDOW_RUNS or sum(window) < _WINDOW_SECONDS:
            window.append(_seconds(run, clock))
            if count + len(window) > 1 and clock() - began >= budget.warm_up_seconds:
                return count + len(window)
        count += len(window)
        median = statistics.median(window)
        if previous is not None and abs(median - previous) <= _STABLE * previous:
            return count
        previous = median


def timed_runs(run: Callable[[], Any], budget: TimingBudget, clock: Clock = time.perf_counter) -> list[float]:
    """Return the seconds of each run, in order; the garbage collector is kept out, as `timeit` does.

    At least one run is made, and whatever the limits say three, unless the user fixes their number.
    """
    with undisturbed():
        if budget.runs is not None:
            return [_seconds(run, clock) for _ in range(budget.runs)]
        times: list[float] = []
        began, look = clock(), budget.least_runs
        while not _is_enough(times, budget, clock() - began, look):
            if len(times) == look:
                look += max(1, look // _GROWTH)
            times.append(_seconds(run, clock))
        return times


def _is_enough(times: list[float], budget: TimingBudget, elapsed: float, look: int) -> bool:
    if len(times) >= budget.max_runs:
        return True
    if elapsed >= budget.max_seconds and len(times) >= _LEAST_SLOW_RUNS:
        return True
    if len(times) != look or elapsed < budget.least_seconds or relative_error(times) > budget.relative_error:
        return False
    return elapsed >= budget.floor_seconds or floor_distance(block_minima(times)) <= budget.floor_error


def block_minima(seconds: Sequence[float]) -> list[float]:
    """Return the repetitions in milliseconds in a short form: in order, the fastest run of each of at most 32 blocks.

    The fastest, because what disturbs a run only adds time; blocks of successive runs, because disturbances last.
    """
    count = min(len(seconds), _BLOCKS)
    blocks = (seconds[i * len(seconds) // count : (i + 1) * len(seconds) // count] for i in range(count))
    return [float(f"{1e3 * min(block):.{_DIGITS}g}") for block in blocks]


def floor_distance(repetitions: Sequence[float]) -> float:
    """Return how far a quarter of the repetitions is from the fastest one, as a share: how well that one is known.

    A machine that is busy all the time has few undisturbed repetitions, and then a faster one may yet have come.
    """
    ordered = sorted(repetitions)
    return ordered[(len(ordered) - 1) // 4] / ordered[0] - 1.0 if ordered[0] else 0.0


def latency_of(seconds: list[float], warm_up: int) -> Latency:
    """Describe run times by order statistics: means follow the outliers."""
    milliseconds = sorted(1e3 * value for value in seconds)
    percentiles = _percentiles(milliseconds)
    return Latency(
        runs=len(milliseconds),
        warm_up=warm_up,
        median_ms=statistics.median(milliseconds),
        mean_ms=statistics.fmean(milliseconds),
        min_ms=milliseconds[0],
        p5_ms=percentiles[4],
        p95_ms=percentiles[94],
        p99_ms=percentiles[98],
        iqr_ms=percentiles[74] - percentiles[24],
        relative_error=relative_error(milliseconds),
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python's cyclic garbage collector, tracers and profilers out of what is timed; collects before."""
    gc.collect()
    was_enabled, tracer, profiler = gc.isenabled(), sys.gettrace(), sys.getprofile()
    gc.disable()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.setprofile(profiler)
        sys.settrace(tracer)
        if was_enabled:
            gc.enable()


def _percentiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99


def _seconds(run: Callable[[], Any], clock: Clock) -> float:
    started = clock()
    run()
    return clock() - started


_TAILS = 40
"""1 / 0.025: each end of a 95 % interval leaves out 2.5 %."""


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the confidence interval of the median, from order statistics alone: no distribution is assumed.

    The number of values below the true median is binomial with p = 1/2, so the k-th smallest and k-th largest value
    enclose the median with probability 1 - 2 P(B(n, 1/2) <= k - 1); the largest k for which that is at least 95 % is
    taken. W. J. Conover, Practical Nonparametric Statistics, 3rd ed. 1999, section 3.2. Below 6 values no k is enough,
    and the extremes are returned.
    """
    ordered = sorted(values)
    rank = max(1, enclosing_rank(len(ordered)))
    return ordered[rank - 1], ordered[-rank]


def relative_error(values: Sequence[float]) -> float:
    """Return half the width of the median's confidence interval, as a share of the median."""
    low, high = median_interval(values)
    median = statistics.median(values)
    return (high - low) / 2.0 / median if median else 0.0


@lru_cache(maxsize=4096)
def enclosing_rank(count: int) -> int:
    """Return the largest k whose k-th smallest and k-th largest of `count` values enclose the median; 0 for none."""
    rank, term, below = 0, 1, 1  # `below` is 2^count times P(B(count, 1/2) <= rank)
    while _TAILS * below <= 2**count:
        rank += 1
        term = term * (count - rank + 1) // rank
        below += term
    return rank


def __getattr__(name: str) -> Any:
    if name != "Effort":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    warnings.warn("Effort is now TimingBudget.", DeprecationWarning, stacklevel=2)
    return TimingBudget
