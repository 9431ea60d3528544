"""Predictions never fall when batch or length grow, whatever the layers below them say."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.layers import monotone
from tests.unit.predictor_samples import estimate, prediction, question

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
