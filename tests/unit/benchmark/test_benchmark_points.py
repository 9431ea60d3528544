"""Where models are measured, and the request that carries it to another process."""

from __future__ import annotations

import json

import pytest

from pytest_hfaccel.benchmark.measurement import NotMeasured, Point, points_for, points_of, varies_in_length
from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.core.spec import ModelSpec


def spec(task: str, architecture: str = "A") -> ModelSpec:
    return ModelSpec("a", architecture, task)


def test_every_batch_at_every_length_the_least_work_first() -> None:
    assert points_of((8, 1), (128, 32)) == [Point(1, 32), Point(1, 128), Point(8, 32), Point(8, 128)]
    assert points_of((4, 1), ()) == [Point(1), Point(4)]


def test_names_of_points() -> None:
    assert [str(Point(8, 128)), str(Point(8))] == ["b8-s128", "b8"]


@pytest.mark.parametrize(
    ("model", "varies"),
    [
        (spec("fill-mask"), True),
        (spec("text-generation"), True),
        (spec("zero-shot-image-classification"), True),
        (spec("image-classification"), False),
        (spec("image-text-to-text"), False),
        (spec("automatic-speech-recognition", "Wav2Vec2ForCTC"), False),
        (spec("automatic-speech-recognition", "WhisperForConditionalGeneration"), True),
    ],
)
def test_which_models_have_lengths(model: ModelSpec, varies: bool) -> None:
    assert varies_in_length(model) is varies
    assert len(points_for(model, (1, 2), (16, 32))) == (4 if varies else 2)


def test_what_was_not_measured_survives_json() -> None:
    found = NotMeasured(8, 128, Status.CRASHED, Stage.RUN, "SIGFPE")
    assert NotMeasured.from_json(json.loads(json.dumps(found.to_json()))) == found
