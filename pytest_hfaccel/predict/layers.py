"""The layers of a prediction, asked in order until one has an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.predict.prediction import Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace

ORDER = tuple(Source)
"""The order in which layers are asked: `Source` lists the best one first."""


class Layer(Protocol):
    """One way to predict.

    A layer may also have `why_not(question) -> str`, half a sentence on why it has no answer; the chain asks for it
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
        absent: Why a layer is not among them, by name; half a sentence.
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
