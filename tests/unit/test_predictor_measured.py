"""Measured rows answer for themselves, and correct what is predicted between and beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, Noise
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.layers.measured import MeasuredLayer, points_of
from tests.unit.predictor_samples import block_trace, estimate, prediction, question, row


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


def test_an_estimate_is_scaled_with_its_interval() -> None:
    assert estimate(2.0).times(2.0) == estimate(4.0)
