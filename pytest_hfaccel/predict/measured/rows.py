"""The measured rows of one model on one device, joined by batch size and sequence length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import NormalDist, median

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predict.prediction import INTERVAL, Estimate
from pytest_hfaccel.predict.words import MIB

_SIGMA_OF_IQR = 1.349
"""Distance between the quartiles of a normal distribution, in standard deviations."""

_WITHIN = NormalDist().inv_cdf((1 + INTERVAL) / 2)
"""Standard deviations around the mean that hold so many values of a normal distribution: 1.28."""

_LEAST = 0.01
"""Share a measured time is uncertain by at least: two runs of one process agree no better."""


@dataclass(frozen=True)
class MeasuredPoint:
    """What was measured at one batch size and sequence length.

    Attributes:
        batch: Samples.
        length: Tokens per sample; 0 for models without text.
        latency_ms: Median over the rows, with their noise as the interval.
        memory_mb: What the model added to the device's memory at the peak, in MiB; `None` where it was not measured.
        rows: Rows behind it.
        is_emulated: Whether the real runtime ran on a software adapter.
        device_name: The chip.
    """

    batch: int
    length: int
    latency_ms: Estimate
    memory_mb: Estimate | None
    rows: int
    is_emulated: bool
    device_name: str


def points_of(rows: Iterable[Measurement]) -> list[MeasuredPoint]:
    """Join rows of one model, device, dtype and mode by batch and length.

    Rows of tiny weights say nothing about the model that bears the name and are left out; so are rows of a software
    adapter where there are others.
    """
    speaking = [row for row in rows if row.weights != "tiny"]
    real = [row for row in speaking if row.implementation == "real"]
    places: dict[tuple[int, int], list[Measurement]] = {}
    for row in real or speaking:
        places.setdefault((row.batch, row.length), []).append(row)
    return [_point(batch, length, together) for (batch, length), together in sorted(places.items())]


def _point(batch: int, length: int, rows: Sequence[Measurement]) -> MeasuredPoint:
    latencies = [row.latency.median_ms for row in rows]
    memories = [row.memory_bytes / MIB for row in rows if row.memory_bytes is not None]
    return MeasuredPoint(
        batch=batch,
        length=length,
        latency_ms=_estimate(latencies, max(_noise(row) for row in rows)),
        memory_mb=_estimate(memories, _LEAST) if memories else None,
        rows=len(rows),
        is_emulated=all(row.implementation != "real" for row in rows),
        device_name=rows[-1].device_name,
    )


def _noise(row: Measurement) -> float:
    """The standard deviation of a row, as a share: that of its runs or of the calibration loop, and the drift."""
    spread = max(row.latency.iqr_ms / row.latency.median_ms, row.noise.iqr_share) / _SIGMA_OF_IQR
    return hypot(spread, row.noise.drift)


def _estimate(values: Sequence[float], sigma: float) -> Estimate:
    """Put the median of repeated rows between their extremes, widened by the noise of each."""
    middle, share = median(values), max(_LEAST, _WITHIN * sigma)
    return Estimate(middle, min(*values, middle) * (1 - min(share, 0.9)), max(*values, middle) * (1 + share))
