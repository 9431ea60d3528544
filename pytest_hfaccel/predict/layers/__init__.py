"""The layers of a prediction, asked in order until one has an answer, and kept from falling with more work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import exp, log, log2
from typing import Protocol

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace


class Layer(Protocol):
    """One way to predict."""

    @property
    def name(self) -> Source:
        """Which layer this is."""

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction, or `None` when this layer knows nothing about the question.

        Args:
            question: What is asked.
            trace: What the model does at the question's batch, length and dtype; `None` where that is not known.

        Raises:
            HfAccelError: It knew something and failed; the reason is noted and the next layer is asked.
        """

    def why_not(self, question: Question) -> str:
        """Say why it has no answer, or none with a latency; without a full stop."""


def ask_layers(
    layers: Sequence[Layer], question: Question, trace: ModelTrace | None, absent: Mapping[Source, str]
) -> Prediction:
    """Return the prediction of the best layer that has a latency, else the words of all that know something.

    Memory comes from the first layer that has it. `details["passed_over"]` says why the better layers had no latency.

    Args:
        layers: The layers, the best one first; the last one knows something about every question.
        question: What is asked.
        trace: What the model does.
        absent: Why a layer is not among them, by name; without a full stop.
    """
    passed_over = dict(absent)
    known: list[Prediction] = []
    for layer in layers:
        try:
            found = layer.predict(question, trace)
        except HfAccelError as error:
            passed_over[layer.name] = error.message
            continue
        if found is not None:
            known.append(found)
            if found.latency_ms is not None:
                break
        passed_over[layer.name] = layer.why_not(question) if trace else "what the model does is not known"
    answer = known[-1]
    if answer.latency_ms is None:
        answer = replace(answer, source=Source.DECLARED, basis="; ".join(one.basis for one in known))
    memory = answer.memory_mb or next((one.memory_mb for one in known if one.memory_mb), None)
    better = tuple(Source)[: tuple(Source).index(answer.source)]
    reasons = {str(name): passed_over[name] for name in better if name in passed_over}
    return replace(answer, memory_mb=memory, details={**answer.details, "passed_over": reasons})


Ask = Callable[[Question], Prediction]
Numbers = tuple[Estimate | None, Estimate | None]
"""Latency and memory."""

_GUARDED = (Source.LEARNED, Source.CALIBRATED)
"""Layers that could fall. The roofline of a data sheet grows with operations and bytes, and rows are what they are."""

_FIRST_LENGTH = 32
"""The shortest length that longer ones are compared with."""


def monotone(ask: Ask, question: Question, *, has_length: bool) -> Prediction:
    """Return a prediction that does not fall with batch or length."""
    direct = ask(question)
    if direct.source not in _GUARDED:
        return direct

    @cache
    def at(batch: int, length: int) -> Numbers:
        """Return the least numbers above the layer's that do not fall, at powers of two."""
        found = ask(replace(question, batch=batch, length=length))
        numbers: Numbers = (found.latency_ms, found.memory_mb)
        if batch > 1:
            numbers = _bounded(numbers, at(batch // 2, length), max)
        if has_length and length > 1 and length != _FIRST_LENGTH:
            numbers = _bounded(numbers, at(batch, length // 2), max)
        if has_length and length < _FIRST_LENGTH:
            numbers = _bounded(numbers, at(batch, _FIRST_LENGTH), min)
        return numbers

    lengths = _around(question.length) if has_length else [(question.length, 1.0)]
    corners = [
        (share * part, at(batch, length)) for batch, share in _around(question.batch) for length, part in lengths
    ]
    return replace(
        direct,
        latency_ms=_mean((weight, latency) for weight, (latency, _) in corners),
        memory_mb=_mean((weight, memory) for weight, (_, memory) in corners),
    )


def _around(number: int) -> list[tuple[int, float]]:
    """Return the powers of two around a number with their weights on the logarithmic scale."""
    below = 1 << (number.bit_length() - 1)
    if below == number:
        return [(number, 1.0)]
    share = log2(number / below)
    return [(below, 1.0 - share), (2 * below, share)]


def _bounded(numbers: Numbers, bounds: Numbers, pick: Callable[[float, float], float]) -> Numbers:
    """Move latency and memory, with their intervals, to what `pick` (`max`, `min`) says of them and their bounds."""

    def moved(estimate: Estimate | None, bound: Estimate | None) -> Estimate | None:
        if estimate is None or bound is None or pick(estimate.value, bound.value) == estimate.value:
            return estimate
        return estimate.times(bound.value / estimate.value)

    return moved(numbers[0], bounds[0]), moved(numbers[1], bounds[1])


def _mean(estimates: Iterable[tuple[float, Estimate | None]]) -> Estimate | None:
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
