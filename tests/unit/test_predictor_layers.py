"""Layers are asked in order; the answer names the one that had it and why the better ones had none."""

from __future__ import annotations

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.layers import LayerChain
from pytest_hfaccel.tracing.trace import ModelTrace
from tests.unit.predictor_samples import block_trace, estimate, prediction, question

TRACE = block_trace("BertForMaskedLM", {}, batch=1, length=128)


class Says:
    """A layer with a given answer."""

    def __init__(self, name: Source, answer: Prediction | Exception | None, why: str = "") -> None:
        self.name, self._answer, self._why = name, answer, why

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        assert question.model
        assert trace in (None, TRACE)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def why_not(self, question: Question) -> str:
        return f"{self._why} of {question.model}"


def answer(source: Source, milliseconds: float | None = 1.0, mib: float | None = 10.0) -> Prediction:
    return prediction(milliseconds, mib, source=source, basis=str(source))


def test_the_best_layer_with_an_answer_is_named() -> None:
    layers = [Says(source, answer(source)) for source in reversed(Source)]
    assert LayerChain(layers).predict(question(), TRACE).source == Source.MEASURED
    assert LayerChain(layers[:-1]).predict(question(), TRACE).source == Source.LEARNED


def test_the_answer_says_why_better_layers_had_none() -> None:
    layers = [
        Says(Source.MEASURED, None, "no row"),
        Says(Source.CALIBRATED, ConfigError("the calibration is damaged")),
        Says(Source.DATASHEET, answer(Source.DATASHEET)),
        Says(Source.DECLARED, answer(Source.DECLARED, None, None)),
    ]
    found = LayerChain(layers, {Source.LEARNED: "not trained"}).predict(question(), TRACE)
    assert found.source == Source.DATASHEET
    assert found.details["passed_over"] == {
        "measured": "no row of bert-base-uncased",
        "learned": "not trained",
        "calibrated": "the calibration is damaged",
    }


def test_without_a_trace_the_reason_is_that() -> None:
    layers = [Says(Source.DATASHEET, None, "no speed"), Says(Source.DECLARED, answer(Source.DECLARED, None, None))]
    found = LayerChain(layers).predict(question(), None)
    assert found.details["passed_over"] == {"datasheet": "what the model does is not known"}


def test_memory_comes_from_the_first_layer_that_has_it() -> None:
    without_speed = prediction(None, source=Source.DATASHEET, memory_mb=estimate(77.0))
    declared = answer(Source.DECLARED, None, None)
    layers = [Says(Source.DATASHEET, without_speed, "no speed"), Says(Source.DECLARED, declared)]
    found = LayerChain(layers).predict(question(), TRACE)
    assert found.source == Source.DECLARED
    assert found.latency_ms is None
    assert found.memory_mb == estimate(77.0)
    assert found.details["passed_over"] == {"datasheet": "no speed of bert-base-uncased"}


def test_memory_of_a_better_layer_completes_a_worse_one() -> None:
    layers = [
        Says(Source.LEARNED, prediction(None, source=Source.LEARNED, memory_mb=estimate(5.0)), "no time"),
        Says(Source.CALIBRATED, prediction(3.0, None)),
    ]
    found = LayerChain(layers).predict(question(), TRACE)
    assert found.latency_ms == estimate(3.0)
    assert found.memory_mb == estimate(5.0)


def test_no_layer_at_all() -> None:
    found = LayerChain([]).predict(question(), TRACE)
    assert (found.source, found.latency_ms, found.memory_mb) == (Source.DECLARED, None, None)


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        LayerChain([Says(Source.LEARNED, ZeroDivisionError())]).predict(question(), TRACE)
