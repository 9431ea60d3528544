"""Keeps predictions from falling when batch or length grow.

More samples or tokens are more work on the same weights, so they cannot take less time or memory. Interpolated
calibrations and learned corrections do not know that. At powers of two a prediction is therefore raised to those of all
smaller powers of two, and between them it is interpolated, so that it never falls anywhere.

Each length needs a trace of its own, so lengths are compared from `_FIRST_LENGTH` on; shorter ones are capped by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from math import exp, log, log2

from pytest_hfaccel.predict.prediction import Estimate, Prediction, Question, Source

Ask = Callable[[Question], Prediction]

_GUARDED = (Source.LEARNED, Source.CALIBRATED)
"""Layers that could fall. The roofline of a data sheet grows with operations and bytes, and rows are what they are."""

_FIRST_LENGTH = 32
"""The shortest length that longer ones are compared with."""


def monotone(ask: Ask, question: Question, *, has_length: bool) -> Prediction:
    """Return a prediction that does not fall with batch or length.

    Args:
        ask: Predicts at any batch and length.
        question: What is asked.
        has_length: Whether the model's work depends on the length.
    """
    direct = ask(question)
    if direct.source not in _GUARDED:
        return direct
    envelope = _Envelope(ask, question, has_length=has_length)
    lengths = _around(question.length) if has_length else [(question.length, 1.0)]
    corners = [
        (share * part, envelope.at(batch, length))
        for batch, share in _around(question.batch)
        for length, part in lengths
    ]
    return replace(
        direct,
        latency_ms=_mixed((weight, latency) for weight, (latency, _) in corners),
        memory_mb=_mixed((weight, memory) for weight, (_, memory) in corners),
    )


Numbers = tuple[Estimate | None, Estimate | None]
"""Latency and memory."""


class _Envelope:
    """The least numbers above a layer's that do not fall, at powers of two."""

    def __init__(self, ask: Ask, question: Question, *, has_length: bool) -> None:
        self._ask, self._question, self._has_length = ask, question, has_length
        self.at = cache(self._at)

    def _at(self, batch: int, length: int) -> Numbers:
        found = self._ask(replace(self._question, batch=batch, length=length))
        latency, memory = found.latency_ms, found.memory_mb
        for smaller in self._smaller(batch, length):
            latency, memory = _at_least(latency, smaller[0]), _at_least(memory, smaller[1])
        if self._has_length and length < _FIRST_LENGTH:
            most = self.at(batch, _FIRST_LENGTH)
            latency, memory = _at_most(latency, most[0]), _at_most(memory, most[1])
        return latency, memory

    def _smaller(self, batch: int, length: int) -> Iterable[Numbers]:
        if batch > 1:
            yield self.at(batch // 2, length)
        if self._has_length and length > 1 and length != _FIRST_LENGTH:
            yield self.at(batch, length // 2)


def _around(number: int) -> list[tuple[int, float]]:
    """Return the powers of two around a number with their weights on the logarithmic scale."""
    below = 1 << (number.bit_length() - 1)
    if below == number:
        return [(number, 1.0)]
    share = log2(number / below)
    return [(below, 1.0 - share), (2 * below, share)]


def _at_least(estimate: Estimate | None, least: Estimate | None) -> Estimate | None:
    if estimate is None or least is None or estimate.value >= least.value:
        return estimate
    return estimate.times(least.value / estimate.value)


def _at_most(estimate: Estimate | None, most: Estimate | None) -> Estimate | None:
    if estimate is None or most is None or estimate.value <= most.value:
        return estimate
    return estimate.times(most.value / estimate.value)


def _mixed(estimates: Iterable[tuple[float, Estimate | None]]) -> Estimate | None:
    """Return the weighted geometric mean."""
    given = [(weight, estimate) for weight, estimate in estimates if weight > 0]
    known = [(weight, estimate) for weight, estimate in given if estimate is not None]
    if len(known) < len(given):
        return None
    if len(known) == 1:
        return known[0][1]

    def mean(number: str) -> float:
        return exp(sum(weight * log(getattr(estimate, number)) for weight, estimate in known))

    return Estimate(mean("value"), mean("low"), mean("high"))
