"""The layer that answers from measured rows: the row itself, or what the rows say about points between and beyond."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, hypot, log
from statistics import NormalDist, median
from typing import NamedTuple

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.prediction import INTERVAL, Estimate, Prediction, Question, Source
from pytest_hfaccel.predict.layers import Ask
from pytest_hfaccel.predict.text import MIB
from pytest_hfaccel.tracing.trace import ModelTrace

_SIGMA_OF_IQR = 1.349
"""Distance between the quartiles of a normal distribution, in standard deviations."""

_WITHIN = NormalDist().inv_cdf((1 + INTERVAL) / 2)
"""Standard deviations around the mean that hold so many values of a normal distribution: 1.28."""

_LEAST = 0.01
"""Share a measured time is uncertain by at least: two runs of one process agree no better."""

_PER_DOUBLING = 0.05
"""Share by which the interval widens for each doubling of the work beyond the nearest row. A convention: on this
project's CPU rows, the ratio of measured to predicted time of one model changes by about that much from a batch or
length to the double of it."""


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
    memories = [row.memory_bytes / MIB for row in rows if row.memory_bytes is not None]
    return MeasuredPoint(
        batch=batch,
        length=length,
        latency_ms=_estimate([row.latency.median_ms for row in rows], max(map(_noise, rows))),
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


class MeasuredLayer:
    """Answers from the measured rows of one model on one device, at one precision and mode.

    A row at the very batch and length is returned as it is. Elsewhere the rows correct the model of the device: its
    prediction is multiplied by what the rows next to it, in order of predicted time, were above theirs.

    Args:
        points: The rows, joined by batch and length.
        model_of_device: Predicts without rows of this model; its latencies must not fall with batch or length.
    """

    name = Source.MEASURED

    def __init__(self, points: Sequence[MeasuredPoint], model_of_device: Ask) -> None:
        self._points, self._ask = points, model_of_device

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the row or what follows from the rows; `None` without rows, or when the device's model has none."""
        length = trace.length if trace is not None else question.length
        for point in self._points:
            if point.batch == question.batch and point.length in (0, length):
                how = "measured on a software adapter" if point.is_emulated else "measured"
                chip = point.device_name or question.device
                basis = f"{how} on {chip}: {_counted([point])} at this batch and length in the database"
                return Prediction(question, self.name, basis, point.latency_ms, point.memory_mb, rows=point.rows)
        return self._between(question) if self._points else None

    def why_not(self, question: Question) -> str:
        """Say why there is no answer."""
        if not self._points:
            return f"no row of {question.model or question.architecture} on {question.device} at {question.dtype}"
        return f"{self._describe()}, and nothing predicts how its time grows from there"

    def _between(self, question: Question) -> Prediction | None:
        here = self._ask(question)
        known = [
            (point, self._ask(replace(question, batch=point.batch, length=point.length or question.length)))
            for point in self._points
        ]
        latency = _corrected(here.latency_ms, [(p.latency_ms, a.latency_ms) for p, a in known])
        if latency is None:
            return None
        return replace(
            here,
            question=question,
            source=self.name,
            basis=f"{self._describe()}; between and beyond them the time grows as predicted by: {here.basis}",
            latency_ms=latency,
            memory_mb=_corrected(here.memory_mb, [(p.memory_mb, a.memory_mb) for p, a in known]) or here.memory_mb,
            rows=sum(point.rows for point in self._points),
        )

    def _describe(self) -> str:
        places = ", ".join(f"batch {p.batch} length {p.length}" for p in self._points[:4])
        more = f" and {len(self._points) - 4} more" if len(self._points) > 4 else ""
        return f"{_counted(self._points)} in the database at {places}{more}"


def _counted(points: Sequence[MeasuredPoint]) -> str:
    rows = sum(point.rows for point in points)
    return f"{rows:,} row{'' if rows == 1 else 's'}"


class _Anchor(NamedTuple):
    """A row as the device's model sees it: logarithm of the predicted number, and of how far the row is above it."""

    at: float
    above: float
    row: Estimate


def _corrected(here: Estimate | None, rows: Sequence[tuple[Estimate | None, Estimate | None]]) -> Estimate | None:
    """Return a prediction as rows correct it: linear in the logarithms between rows, parallel beyond them."""
    anchors = [_Anchor(log(said.value), log(row.value / said.value), row) for row, said in rows if row and said]
    if here is None or not anchors:
        return None
    anchors = _rising(sorted(anchors, key=lambda anchor: anchor.at))
    at = log(here.value)
    first = ([anchor for anchor in anchors if anchor.at <= at] or anchors[:1])[-1]
    last = ([anchor for anchor in anchors if anchor.at >= at] or anchors[-1:])[0]
    share = (at - first.at) / (last.at - first.at) if last.at > first.at else 0.0
    value = here.value * exp((1 - share) * first.above + share * last.above)
    nearest = min(abs(at - first.at), abs(at - last.at)) / log(2)
    spread = 1 + _PER_DOUBLING * nearest
    noise = max(max(each.row.high / each.row.value, each.row.value / each.row.low) for each in (first, last))
    return Estimate(value, value / (noise * spread), value * noise * spread)


def _rising(anchors: Sequence[_Anchor]) -> list[_Anchor]:
    """Raise rows that are faster than rows of less work: noise, which a prediction must not turn into a promise."""
    kept: list[_Anchor] = []
    for anchor in anchors:
        least = kept[-1].at + kept[-1].above if kept else -float("inf")
        kept.append(anchor._replace(above=max(anchor.above, least - anchor.at)))
    return kept
