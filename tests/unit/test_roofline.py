"""The operator-level roofline, on a device whose speed is known."""

from __future__ import annotations

import pytest

from pytest_hfaccel.core.prediction import Question, Source
from pytest_hfaccel.predict.calibration.records import TimedOperator
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline, Rates, Times
from pytest_hfaccel.predict.layers.roofline import CalibratedLayer
from pytest_hfaccel.tracing.trace import ModelTrace, Operator
from tests.unit.calibrations import CALL, MODULE, RATE, SECONDS_PER_NUMBER, VIEW, even_calibration


def trace(*operators: Operator, batch: int = 1) -> ModelTrace:
    return ModelTrace("BertModel", batch, 8, "fp32", False, 10, 40, 40, 100, 10, operators)


def numbers(count: int) -> int:
    return 4 * count


LINEAR = Operator("addmm", ((64,), (16, 32), (32, 64)), (16, 64), 2 * 16 * 32 * 64, 0, 0)
BATCHED = Operator("bmm", ((8, 16, 64), (8, 64, 16)), (8, 16, 16), 2 * 8 * 16 * 64 * 16, 0, 0)
ATTENTION = Operator("_scaled_dot_product_flash_attention_for_cpu", ((1, 8, 16, 64),) * 3, (1, 8, 16, 64), 10**6, 0, 0)
CONV = Operator("convolution", ((1, 64, 7, 7), (64, 64, 3, 3)), (1, 64, 7, 7), 2 * 49 * 64 * 576, 0, 0)
DEPTHWISE = Operator("convolution", ((1, 64, 7, 7), (64, 1, 3, 3)), (1, 64, 7, 7), 2 * 49 * 64 * 9, 0, 0, groups=64)


@pytest.mark.parametrize(
    ("operator", "group"),
    [(LINEAR, "matrix"), (BATCHED, "bmm"), (ATTENTION, "attention"), (CONV, "conv"), (DEPTHWISE, "depthwise")],
)
def test_an_operator_that_computes_takes_its_operations_at_the_measured_rate(operator: Operator, group: str) -> None:
    breakdown = OperatorRoofline(even_calibration()).breakdown(trace(operator))
    assert breakdown[group] == pytest.approx(operator.flops / RATE, rel=1e-3)
    assert sum(breakdown.values()) == breakdown[group]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("gelu", "activation"),
        ("clone", "copy"),
        ("native_layer_norm", "norm"),
        ("_softmax", "softmax"),
        ("mul_", "other"),
        ("something_new", "other"),
    ],
)
def test_an_operator_that_moves_numbers_takes_the_time_of_one_like_it(name: str, group: str) -> None:
    operator = Operator(name, ((1000,),), (1000,), 0, numbers(1000), numbers(1000))
    breakdown = OperatorRoofline(even_calibration()).breakdown(trace(operator))
    assert breakdown[group] == pytest.approx(1000 * SECONDS_PER_NUMBER)


def test_views_and_launches_have_their_own_time() -> None:
    view = Operator("view", ((8,),), (8,), 0, 0, 0, is_view=True, count=10)
    twice = Operator("add", ((1000,), (1000,)), (1000,), 0, numbers(2000), numbers(1000), count=2)
    seconds = OperatorRoofline(even_calibration()).seconds(trace(view, twice))
    assert seconds == pytest.approx(CALL + 10 * VIEW + 2 * MODULE + 2 * 1000 * SECONDS_PER_NUMBER)


def test_half_precision_has_half_the_bytes_of_a_number() -> None:
    operator = Operator("gelu", ((1000,),), (1000,), 0, 2 * 1000, 2 * 1000)
    half = ModelTrace("BertModel", 1, 8, "bf16", False, 10, 20, 20, 50, 5, (operator,))
    breakdown = OperatorRoofline(even_calibration(dtype="bf16")).breakdown(half)
    assert breakdown["activation"] == pytest.approx(1000 * SECONDS_PER_NUMBER)


def test_rates_agree_with_what_was_measured_and_lie_between_it() -> None:
    timed = [TimedOperator("linear", (1, 64, 64), 1e-6, 10**4), TimedOperator("linear", (64, 64, 64), 1e-6, 10**6)]
    rates = Rates(timed, (0, 1, 2))
    assert rates.at((1, 64, 64)) == pytest.approx(1e10, rel=0.05)
    assert rates.at((64, 64, 64)) == pytest.approx(1e12, rel=0.05)
    assert 1e10 < rates.at((8, 64, 64)) < 1e12


def test_times_grow_in_proportion_beyond_the_largest_size() -> None:
    times = Times([TimedOperator("copy", (10,), 1e-6), TimedOperator("copy", (1000,), 1e-4)])
    assert times.at(10_000) == pytest.approx(1e-3)
    assert times.at(0) == pytest.approx(1e-6)
    assert times.at(100) == pytest.approx(1e-5)


def test_the_layer_answers_for_its_device_and_dtype_and_says_what_it_rests_on() -> None:
    layer = CalibratedLayer([even_calibration()])
    found = layer.predict(Question("BertModel", "cpu"), trace(LINEAR))
    assert found is not None
    assert found.source == Source.CALIBRATED
    assert "an even device" in found.basis
    assert found.latency_ms is not None
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    assert layer.predict(Question("BertModel", "cpu", dtype="fp16"), trace(LINEAR)) is None
    assert layer.predict(Question("BertModel", "cuda"), trace(LINEAR)) is None
    assert layer.predict(Question("BertModel", "cpu"), None) is None
    assert "hfaccel calibrate" in layer.why_not(Question("BertModel", "cuda"))


def test_the_calibration_with_as_many_threads_is_preferred() -> None:
    layer = CalibratedLayer([even_calibration(threads=8), even_calibration(threads=2)], threads=2)
    found = layer.predict(Question("BertModel", "cpu"), trace(LINEAR))
    assert found is not None
    assert "2 threads" in found.basis
