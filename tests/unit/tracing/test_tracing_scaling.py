"""Traces at any batch size from two to four recorded ones, against tracing that batch size."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.tracing.recording import Recording, ScalableTrace, Subject, Weights, scalable_trace
from pytest_hfaccel.tracing.trace import Operator
from tests.unit.tracing.tracing_models import LENGTH, MODELS


def recording(batch: int, *operators: Operator, curve: tuple[tuple[int, int], ...] = ((0, 0),)) -> Recording:
    subject = Subject("Some", 8, "fp32", False, Weights(100, 400, 0, 0), 240, 50, 10, 0)
    return Recording(subject, batch, operators, curve, (40 * batch, 10 * batch))


def add(batch: int, name: str = "add") -> Operator:
    shape = (batch, 8)
    return Operator(
        name, (shape, shape), shape, 0, 64 * batch, 32 * batch, read_floats=16 * batch, written_floats=8 * batch
    )


def product_of_pairs(batch: int) -> Operator:
    return Operator("mm", ((batch, 8), (8, batch)), (batch, batch), 16 * batch**2, 64 * batch, 4 * batch**2)


def test_two_batches_suffice_where_the_operators_are_the_same() -> None:
    asked: list[int] = []

    def record(batch: int) -> Recording:
        asked.append(batch)
        return recording(batch, add(batch), add(batch))

    traces = scalable_trace(record)
    assert asked == [1, 2]
    assert traces.at(7) == recording(7, add(7), add(7)).trace("fp32")
    assert traces.at(7).operators[0].count == 2


def test_batch_1_may_run_other_operators() -> None:
    def record(batch: int) -> Recording:
        return recording(batch, add(batch), *([add(batch, "clone")] if batch > 1 else []))

    traces = scalable_trace(record)
    assert traces.at(1) == record(1).trace("fp32")
    assert traces.at(9) == record(9).trace("fp32")


def test_similarities_between_all_pairs_grow_with_the_square() -> None:
    def record(batch: int) -> Recording:
        return recording(batch, add(batch), product_of_pairs(batch))

    traces = scalable_trace(record)
    assert [one.batch for one in traces.growing] == [1, 2, 3]
    assert traces.at(10).operators == (add(10), product_of_pairs(10))


def test_where_operators_never_correspond_each_batch_is_to_be_traced() -> None:
    traces = scalable_trace(lambda batch: recording(batch, *[add(batch)] * batch))
    assert not traces.is_scalable
    assert traces.has(1, "bf16")
    assert not traces.has(2, "fp32")
    with pytest.raises(LoadError, match="nothing about batch 2"):
        traces.at(2)


def test_the_highest_point_of_memory_may_move() -> None:
    def record(batch: int) -> Recording:
        return recording(batch, add(batch), add(batch), curve=((1000, 0), (50, 0), (10 + 100 * batch, 25 * batch)))

    traces = scalable_trace(record)
    assert [len(one.curve) for one in traces.growing] == [2, 2]
    assert traces.at(1).activation_bytes == 1000
    assert traces.at(20).activation_bytes == 2010
    assert traces.at(20, "bf16").activation_bytes == 1010


def test_bytes_follow_the_dtype() -> None:
    traces = scalable_trace(lambda batch: recording(batch, add(batch)))
    half, quantised = traces.at(4, "bf16"), traces.at(4, "int8")
    assert half.operators[0].read_bytes == 128
    assert (half.weight_bytes, half.multiplied_bytes, half.output_bytes) == (200, 120, 80)
    assert (quantised.weight_bytes, quantised.multiplied_bytes, quantised.output_bytes) == (250, 90, 160)
    with pytest.raises(ConfigError, match=r"'fp61' is not a dtype. Allowed: fp32"):
        traces.at(4, "fp61")


def test_json_and_back() -> None:
    traces = scalable_trace(lambda batch: recording(batch, add(batch), product_of_pairs(batch)))
    assert ScalableTrace.from_json(traces.to_json()) == traces


def scalable(architecture: str, **how: Any) -> ScalableTrace:
    from pytest_hfaccel.tracing.traces import traces_of

    return traces_of(architecture, MODELS[architecture], length=LENGTH, cache_dir=None, **how)


def exact(architecture: str, batch: int, **how: Any) -> Any:
    from pytest_hfaccel.tracing.traces import trace_model

    return trace_model(architecture, MODELS[architecture], batch=batch, length=LENGTH, **how)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", MODELS)
def test_batch_8_is_what_tracing_it_gives(architecture: str) -> None:
    assert scalable(architecture).at(8) == exact(architecture, 8)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "CLIPModel", "ResNetForImageClassification"])
def test_so_it_is_for_training_steps(architecture: str) -> None:
    assert scalable(architecture, training=True).at(8) == exact(architecture, 8, training=True)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "ViTForImageClassification"])
def test_a_half_precision_needs_no_trace_of_its_own(architecture: str) -> None:
    scaled, traced = scalable(architecture).at(8, "bf16"), exact(architecture, 8, dtype="bf16")
    assert scaled.flops == traced.flops
    assert scaled.weight_bytes == traced.weight_bytes
    assert scaled.activation_bytes == traced.activation_bytes
    assert scaled.moved_bytes == pytest.approx(traced.moved_bytes, rel=0.01)
