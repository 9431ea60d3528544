"""The layers: asked in order, measured rows first, never falling with more work."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, Noise
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.layers import ask_layers, monotone
from pytest_hfaccel.predict.layers.measured import MeasuredLayer, points_of
from pytest_hfaccel.tracing.trace import ModelTrace
from tests.unit.predict.predict_samples import block_trace, estimate, prediction, question, row

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
    layers = [Says(source, answer(source)) for source in Source]
    assert ask_layers(layers, question(), TRACE, {}).source == Source.MEASURED
    assert ask_layers(layers[1:], question(), TRACE, {}).source == Source.LEARNED


def test_the_answer_says_why_better_layers_had_none() -> None:
    layers = [
        Says(Source.MEASURED, None, "no row"),
        Says(Source.CALIBRATED, ConfigError("the calibration is damaged")),
        Says(Source.DATASHEET, answer(Source.DATASHEET)),
        Says(Source.DECLARED, answer(Source.DECLARED, None, None)),
    ]
    found = ask_layers(layers, question(), TRACE, {Source.LEARNED: "not trained"})
    assert found.source == Source.DATASHEET
    assert found.details["passed_over"] == {
        "measured": "no row of bert-base-uncased",
        "learned": "not trained",
        "calibrated": "the calibration is damaged",
    }


def test_without_a_trace_the_reason_is_that() -> None:
    layers = [Says(Source.DATASHEET, None, "no speed"), Says(Source.DECLARED, answer(Source.DECLARED, None, None))]
    found = ask_layers(layers, question(), None, {})
    assert found.details["passed_over"] == {"datasheet": "what the model does is not known"}


def test_memory_comes_from_the_first_layer_that_has_it() -> None:
    without_speed = prediction(None, source=Source.DATASHEET, memory_mb=estimate(77.0))
    declared = answer(Source.DECLARED, None, None)
    layers = [Says(Source.DATASHEET, without_speed, "no speed"), Says(Source.DECLARED, declared)]
    found = ask_layers(layers, question(), TRACE, {})
    assert found.source == Source.DECLARED
    assert found.latency_ms is None
    assert found.memory_mb == estimate(77.0)
    assert found.details["passed_over"] == {"datasheet": "no speed of bert-base-uncased"}


def test_memory_of_a_better_layer_completes_a_worse_one() -> None:
    layers = [
        Says(Source.LEARNED, prediction(None, source=Source.LEARNED, memory_mb=estimate(5.0)), "no time"),
        Says(Source.CALIBRATED, prediction(3.0, None)),
    ]
    found = ask_layers(layers, question(), TRACE, {})
    assert found.latency_ms == estimate(3.0)
    assert found.memory_mb == estimate(5.0)


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ask_layers([Says(Source.LEARNED, ZeroDivisionError())], question(), TRACE, {})


def device(asked: Question) -> Prediction:
    """The model of the device: a millisecond and ten MiB per sample."""
    return prediction(float(asked.batch), 10.0 * asked.batch, question=asked)


def layer(*rows: Measurement) -> MeasuredLayer:
    return MeasuredLayer(points_of(rows), device)


def ask(rows: Sequence[Measurement], **changed: object) -> Prediction:
    asked = question(**changed)
    trace = block_trace("BertForMaskedLM", {}, batch=asked.batch, length=asked.length)
    found = layer(*rows).predict(asked, trace)
    assert found is not None
    return found


def value(found: Prediction) -> float:
    assert found.latency_ms is not None
    return found.latency_ms.value


def test_a_row_is_returned_as_it_is() -> None:
    found = ask([row(12.5, batch=8), row(3.0)], batch=8)
    assert found.source == Source.MEASURED
    assert value(found) == 12.5
    assert found.memory_mb is not None
    assert found.memory_mb.value == 600.0
    assert found.rows == 1
    assert "1 row at this batch and length" in found.basis


def test_the_noise_of_a_row_is_its_interval() -> None:
    quiet, loud = row(10.0), row(10.0)
    loud = replace(loud, latency=replace(loud.latency, iqr_ms=1.349), noise=Noise(1.0, 1.1, 0.0))
    quiet_found, loud_found = ask([quiet]).latency_ms, ask([loud]).latency_ms
    assert quiet_found is not None
    assert loud_found is not None
    assert quiet_found.low == pytest.approx(9.9)
    # Standard deviation 10 % of the runs, drift 10 %: 1.28 x sqrt(0.02).
    assert loud_found.high == pytest.approx(10 * (1 + 1.2816 * 0.02**0.5), rel=1e-3)


def test_repeated_rows_are_joined() -> None:
    found = ask([row(10.0), row(14.0), row(11.0)])
    assert value(found) == 11.0
    assert found.rows == 3
    assert found.latency_ms is not None
    assert found.latency_ms.low <= 10.0
    assert found.latency_ms.high >= 14.0


def test_tiny_weights_and_software_adapters_say_nothing_about_the_model() -> None:
    assert points_of([row(weights="tiny")]) == []
    real, emulated = row(10.0), row(900.0, implementation="emulated")
    assert [point.latency_ms.value for point in points_of([emulated, real])] == [10.0]
    assert "software adapter" in ask([emulated]).basis


def test_a_row_without_text_fits_every_length() -> None:
    assert value(ask([row(5.0, length=0)], length=77)) == 5.0


def test_between_rows_the_correction_is_interpolated() -> None:
    rows = [row(2.0, batch=1, memory_bytes=None), row(64.0, batch=16, memory_bytes=None)]
    # Twice and four times what the device's model says; half way between on the logarithmic scale, 2.83 times.
    assert value(ask(rows, batch=4)) == pytest.approx(4 * 8**0.5)
    found = ask(rows, batch=2)
    assert 2.0 < value(found) < value(ask(rows, batch=4))
    assert "2 rows in the database at batch 1 length 128, batch 16 length 128" in found.basis


def test_beyond_the_rows_the_nearest_correction_holds_and_the_interval_widens() -> None:
    rows = [row(2.0, batch=1), row(6.0, batch=2)]
    near, far = ask(rows, batch=4), ask(rows, batch=64)
    assert value(near) == pytest.approx(12.0)
    assert value(far) == pytest.approx(192.0)
    assert near.latency_ms is not None
    assert far.latency_ms is not None
    assert far.latency_ms.high / far.latency_ms.value > near.latency_ms.high / near.latency_ms.value


def test_memory_is_corrected_likewise() -> None:
    found = ask([row(memory_bytes=20 * 2**20)], batch=8)
    assert found.memory_mb is not None
    assert found.memory_mb.value == pytest.approx(2 * 80.0)


@pytest.mark.parametrize("order", [1, -1])
def test_a_noisy_faster_row_of_more_work_does_not_make_predictions_fall(order: int) -> None:
    rows = [row(10.0, batch=1), row(8.0, batch=4), row(30.0, batch=16)][::order]
    values = [value(ask(rows, batch=batch)) for batch in (2, 3, 5, 8, 15, 32)]
    assert values == sorted(values)
    assert values[0] >= 10.0


def test_without_rows_or_without_a_model_of_the_device_there_is_no_answer() -> None:
    assert layer().predict(question(), None) is None
    assert "no row of bert-base-uncased on cpu at fp32" in layer().why_not(question())
    blind = MeasuredLayer(points_of([row(batch=2)]), lambda asked: prediction(None, None, question=asked))
    assert blind.predict(question(batch=3), None) is None
    assert "nothing predicts how its time grows" in blind.why_not(question())


BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 31, 32, 64)
LENGTHS = (8, 16, 17, 24, 32, 64, 100, 128, 512)


def rough(seed: int) -> Callable[[Question], Prediction]:
    """A layer whose times and memory grow with the work, each off by up to 45 % in its own direction."""

    def ask(asked: Question) -> Prediction:
        drawn = random.Random(f"{seed} {asked.batch} {asked.length}")  # noqa: S311 - no secret
        work = 1.0 + 0.01 * asked.batch * asked.length
        time, memory = (work * drawn.uniform(0.75, 1.45) for _ in range(2))
        return prediction(time, memory, question=asked)

    return ask


@pytest.mark.parametrize("seed", range(20))
def test_nothing_falls(seed: int) -> None:
    ask = rough(seed)

    def at(batch: int, length: int) -> Prediction:
        return monotone(ask, question(batch=batch, length=length), has_length=True)

    found = {(batch, length): at(batch, length) for batch in BATCHES for length in LENGTHS}
    steps = [((b, a), (c, a)) for a in LENGTHS for b, c in pairwise(BATCHES)]
    steps += [((a, b), (a, c)) for a in BATCHES for b, c in pairwise(LENGTHS)]
    for before, after in steps:
        for number in ("latency_ms", "memory_mb"):
            small, large = getattr(found[before], number), getattr(found[after], number)
            assert small.value <= large.value * (1 + 1e-9), (before, after, number)


def test_the_rough_layer_itself_does_fall() -> None:
    values = [rough(0)(question(batch=batch)).latency_ms for batch in BATCHES]
    assert any(one.value > two.value for one, two in pairwise(values) if one and two)


def test_a_prediction_that_does_not_fall_is_left_alone() -> None:
    def ask(asked: Question) -> Prediction:
        return prediction(float(asked.batch * asked.length), question=asked)

    found = monotone(ask, question(batch=8, length=64), has_length=True)
    assert found.latency_ms == estimate(512.0)
    between = monotone(ask, question(batch=6, length=64), has_length=True)
    assert between.latency_ms is not None
    assert between.latency_ms.value == pytest.approx(6 * 64)


def test_a_fall_is_raised_to_the_smaller_one() -> None:
    def ask(asked: Question) -> Prediction:
        return prediction({1: 5.0, 2: 3.0}[asked.batch], question=asked)

    found = monotone(ask, question(batch=2), has_length=False)
    assert found.latency_ms is not None
    assert found.latency_ms.value == pytest.approx(5.0)
    assert found.latency_ms.high == pytest.approx(5.5)


def test_models_without_text_are_asked_at_one_length() -> None:
    asked = []

    def ask(one: Question) -> Prediction:
        asked.append(one.length)
        return prediction(question=one)

    monotone(ask, question(batch=4, length=100), has_length=False)
    assert set(asked) == {100}


@pytest.mark.parametrize("source", [Source.DATASHEET, Source.DECLARED])
def test_layers_that_cannot_fall_are_asked_once(source: Source) -> None:
    asked = []

    def ask(one: Question) -> Prediction:
        asked.append(one)
        return replace(prediction(question=one), source=source)

    monotone(ask, question(batch=6, length=100), has_length=True)
    assert len(asked) == 1


def test_what_has_no_number_stays_so() -> None:
    found = monotone(lambda asked: prediction(None, None, question=asked), question(batch=3), has_length=True)
    assert (found.latency_ms, found.memory_mb) == (None, None)
