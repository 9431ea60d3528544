"""The median time of one operator: short, because a calibration measures two hundred of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

_WARM_UP = 1
_LEAST_RUNS, _MOST_RUNS = 5, 400
_SECONDS = 0.05


def median_seconds(run: Callable[[], Any], finish: Callable[[], Any] = lambda: None) -> float:
    """Return the median time of a call.

    Args:
        run: Does the work, or starts it on an accelerator.
        finish: Waits until the device is done.
    """
    for _ in range(_WARM_UP):
        run()
    finish()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _LEAST_RUNS or (time.perf_counter() - began < _SECONDS and len(times) < _MOST_RUNS):
        started = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
