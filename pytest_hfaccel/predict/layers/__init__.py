"""The layers of a prediction, asked in order until one has an answer, and kept from falling with more work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from math import exp, log, log2
from typing import Protocol

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace

ORDER = tuple(Source)
"""The order in which layers are asked: `Source` lists the best one first."""


class Layer(Protocol):
    """One way to predict.

    A layer may also have `why_not(question) -> str`, without a full stop on why it has no answer; the chain asks for it
    when `predict` returned none, or none with a latency.
    """

    @property
    def name(self) -> Source:
        """Which layer this is."""

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction, or `None` when this layer knows nothing about the question.

        Args:
            question: What is asked.
            trace: What the model does at the question's batch, length and dtype; `None` where that is not known.

        Raises:
            HfAccelError: It knew something and failed; the chain notes why and asks the next layer.
        """


class LayerChain:
    """Asks layers, the best one first.

    Args:
        layers: The layers, in any order, at most one of each name.
        absent: Why a layer is not among them, by name; without a full stop.
    """

    def __init__(self, layers: Iterable[Layer], absent: Mapping[Source, str] | None = None) -> None:
        self._layers = sorted(layers, key=lambda layer: ORDER.index(layer.name))
        self._absent = dict(absent or {})

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction:
        """Return the prediction of the best layer that has a latency, else what the last one said.

        Memory comes from the first layer that has it. `details["passed_over"]` says why the better layers had none.
        """
        passed_over = dict(self._absent)
        without_latency: list[Prediction] = []
        for layer in self._layers:
            try:
                found = layer.predict(question, trace)
            except HfAccelError as error:
                passed_over[layer.name] = error.message
                continue
            if found is not None and found.latency_ms is not None:
                return _completed(found, without_latency, passed_over)
            if found is not None:
                without_latency.append(found)
            passed_over[layer.name] = _why_not(layer, question, has_trace=trace is not None)
        return _without_latency(question, without_latency, passed_over)


def _why_not(layer: Layer, question: Question, *, has_trace: bool) -> str:
    if not has_trace and layer.name not in (Source.MEASURED, Source.DECLARED):
        return "what the model does is not known"
    why = getattr(layer, "why_not", None)
    return str(why(question)) if why else _WHY_NOT[layer.name]


_WHY_NOT = {
    Source.MEASURED: "no row of this model on this device",
    Source.LEARNED: "no model was trained for this device at this precision and mode (`hfaccel predict --train`)",
    Source.CALIBRATED: "no calibration of this device at this precision (`hfaccel calibrate`)",
    Source.DATASHEET: "no data sheet of this device is known",
    Source.DECLARED: "a declaration has no number",
}


def _completed(found: Prediction, partial: list[Prediction], passed_over: Mapping[Source, str]) -> Prediction:
    memory = found.memory_mb or next((one.memory_mb for one in partial if one.memory_mb), None)
    better = ORDER[: ORDER.index(found.source)]
    reasons = {str(name): passed_over[name] for name in better if name in passed_over}
    return replace(found, memory_mb=memory, details={**found.details, "passed_over": reasons})


def _without_latency(question: Question, partial: list[Prediction], passed_over: Mapping[Source, str]) -> Prediction:
    """Keep the words of all layers that knew something, and the best layer's memory."""
    last = partial[-1] if partial else Prediction(question, Source.DECLARED, "nothing is known", None, None)
    memory = next((one.memory_mb for one in partial if one.memory_mb), None)
    reasons = {str(name): passed_over[name] for name in ORDER if name in passed_over and name != Source.DECLARED}
    basis = "; ".join(one.basis for one in partial) or last.basis
    return replace(
        last, source=Source.DECLARED, basis=basis, memory_mb=memory, details={**last.details, "passed_over": reasons}
    )


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
