"""What the machine does beside a measurement: a fixed piece of work on the CPU, timed before and after it.

A measurement whose loop was slower afterwards, or jumped about, was disturbed by others or by the clock. The loop is
plain Python: it allocates next to nothing, so that it leaves the memory that is being measured alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_hfaccel.benchmark.clocks import Clocks, read_clocks, throttled_between
from pytest_hfaccel.benchmark.measurement import Noise

_STEPS = 20_000
"""About a millisecond: long against the resolution of the timer, short against a measurement."""
_REPEATS = 15


def fixed_work() -> int:
    """Do the same integer arithmetic every time: the 31-bit generator of Park and Miller (CACM 31:10, 1988)."""
    state = 1
    for _ in range(_STEPS):
        state = state * 16807 % 2147483647
    return state


@dataclass(frozen=True)
class NoiseReading:
    """The calibration loop at one moment, with the clocks."""

    seconds: tuple[float, ...]
    clocks: Clocks


def read_noise(device: str, clock: Callable[[], float] = time.perf_counter) -> NoiseReading:
    """Time the loop now.

    Args:
        device: Device id whose clock is noted besides; see `clocks.read_clocks`.
        clock: Seconds; only differences count.
    """
    seconds = []
    for _ in range(_REPEATS):
        started = clock()
        fixed_work()
        seconds.append(clock() - started)
    return NoiseReading(tuple(seconds), read_clocks(device))


def noise_between(before: NoiseReading, after: NoiseReading) -> Noise:
    """Compare the readings around a measurement."""
    together = [*before.seconds, *after.seconds]
    quartiles = statistics.quantiles(together, n=4, method="inclusive")
    return Noise(
        before_ms=_milliseconds(before.seconds),
        after_ms=_milliseconds(after.seconds),
        iqr_share=(quartiles[2] - quartiles[0]) / statistics.median(together),
        clock_mhz=(before.clocks.mhz, after.clocks.mhz),
        throttled=throttled_between(before.clocks, after.clocks),
    )


def _milliseconds(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds)
