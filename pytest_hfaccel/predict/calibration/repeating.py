"""The times of one operator: few, because a calibration measures two hundred of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

_WARM_UP = 1
_LEAST_RUNS, _MOST_RUNS = 5, 400
_SECONDS = 0.05
_FEWEST_RUNS, _LONG_SECONDS = 3, 0.2
"""An operator that takes long is less disturbed in proportion: three runs of it will do."""


def median_seconds(
    run: Callable[[], Any], finish: Callable[[], Any] = lambda: None, spreads: list[float] | None = None
) -> float:
    """Return the median time of a call.

    Args:
        run: Does the work, or starts it on an accelerator.
        finish: Waits until the device is done.
        spreads: Given how far the median is above the fastest run, as a share: what others on the machine add to it.
    """
    for _ in range(_WARM_UP):
        run()
    finish()
    times: list[float] = []
    began = time.perf_counter()
    while _goes_on(len(times), time.perf_counter() - began):
        started = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - started)
    median = statistics.median(times)
    if spreads is not None:
        spreads.append(median / max(min(times), 1e-9) - 1)
    return median


def _goes_on(runs: int, seconds: float) -> bool:
    if runs < _LEAST_RUNS:
        return runs < _FEWEST_RUNS or seconds < _LONG_SECONDS
    return seconds < _SECONDS and runs < _MOST_RUNS
