"""Accuracy and calibration on both halves of the hand-labelled hub ids."""

from __future__ import annotations

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from pytest_hfaccel.classify import MODEL_SUBFAMILIES, calibration

_SCRIPT = Path(__file__).parents[3] / "benchmarks" / "classifier_accuracy.py"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classifier_accuracy", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while it is made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize(
    ("mode", "family", "subfamily"), [("name", 0.93, 0.9), ("class", 0.97, 0.8), ("name and class", 0.99, 0.95)]
)
def test_accuracy(accuracy: ModuleType, half: str, mode: str, family: float, subfamily: float) -> None:
    labels = [label for label in accuracy.read_labels() if label.half == half]
    assert len(labels) > 150
    answers = accuracy.answers(labels, mode)
    scored = [answer for answer in answers if answer.label.subfamily]
    assert accuracy.share(answer.family_right for answer in answers) >= family
    assert accuracy.share(answer.subfamily_right for answer in scored) >= subfamily
    pairs = [(answer.given["confidence"], answer.family_right) for answer in answers]
    assert accuracy.calibration_error(pairs) <= 0.05


@pytest.mark.tables
@pytest.mark.parametrize(
    ("mode", "family", "subfamily"), [("name", 0.95, 0.93), ("class", 0.91, 0.7), ("name and class", 0.985, 0.96)]
)
def test_accuracy_on_what_was_hard(accuracy: ModuleType, mode: str, family: float, subfamily: float) -> None:
    """Reward models, classification heads on generators, speech on text trunks, chat models without a chat word."""
    answers = accuracy.answers(accuracy.read_labels(accuracy.LATER_LABELS), mode)
    scored = [answer for answer in answers if answer.label.subfamily]
    assert len(answers) > 250
    assert accuracy.share(answer.family_right for answer in answers) >= family
    assert accuracy.share(answer.subfamily_right for answer in scored) >= subfamily


def test_labels_are_of_known_families(accuracy: ModuleType) -> None:
    labels = [*accuracy.read_labels(), *accuracy.read_labels(accuracy.LATER_LABELS)]
    assert len({label.id for label in labels}) == len(labels) >= 700
    for label in labels:
        assert label.subfamily is None or label.subfamily in MODEL_SUBFAMILIES[label.family], label


def ascend(knots: calibration.Knots) -> bool:
    return all(one[0] < other[0] and one[1] <= other[1] for one, other in pairwise(knots))


def test_the_fit_recovers_a_known_calibration(accuracy: ModuleType) -> None:
    pairs = [(1.0, at % 2 == 0) for at in range(400)] + [(3.0, at % 10 != 0) for at in range(400)]
    knots = accuracy.fit(pairs)
    assert ascend(knots)
    assert calibration.probability(1.0, knots) == pytest.approx(0.5, abs=0.03)
    assert calibration.probability(3.0, knots) == pytest.approx(0.9, abs=0.04)


def test_calibration_error_of_an_overconfident_answer(accuracy: ModuleType) -> None:
    assert accuracy.calibration_error([(0.9, True), (0.9, False)]) == pytest.approx(0.4)


@pytest.mark.parametrize("knots", [calibration.FAMILY, calibration.SUBFAMILY])
def test_the_stored_knots_ascend(knots: calibration.Knots) -> None:
    assert ascend(knots)
    values = [calibration.probability(margin / 10, knots) for margin in range(-20, 120)]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] < 1
