"""Comparing the results of pipelines."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.checks.pipeline import problems_between
from pytest_hfaccel.numerics.tolerances import Tolerance

pytestmark = pytest.mark.slow

_ROW = Tolerance(rel_l2=1e-3, rtol=1e-3, atol=1e-3)


def _labels(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in pairs]


_RANKING = _labels(("a", 0.5), ("b", 0.3), ("c", 0.1))
_BOX = {"xmin": 1, "ymin": 2, "xmax": 10, "ymax": 20}
_OBJECT = {"score": 0.9, "label": "cat", "box": _BOX}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("text", "text"),
        ([[[1.0, 2.0]]], [[[1.0, 2.0001]]]),
        (_RANKING, _RANKING),
        (_labels(("a", 0.4), ("b", 0.4)), _labels(("b", 0.4), ("a", 0.4))),  # a tie within the list
        (_labels(("a", 0.5), ("d", 0.1)), _labels(("a", 0.5), ("c", 0.1))),  # a tie at its end
        ([_OBJECT], [{**_OBJECT, "box": {**_BOX, "xmax": 11}}]),
        ([], []),
    ],
)
def test_equal_up_to_rounding(found: Any, expected: Any) -> None:
    assert problems_between(found, expected, _ROW) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("text", "texts"),
        ([[[1.0, 2.0]]], [[[1.0, 2.1]]]),
        ([[1.0]], [[1.0, 2.0]]),
        (_labels(("a", 0.5), ("b", 0.3)), _RANKING),
        (_labels(("a", 0.5), ("b", 0.35), ("c", 0.1)), _RANKING),
        (_labels(("a", 0.5), ("b", 0.3), ("d", 0.2)), _RANKING),
        (_labels(("b", 0.3), ("a", 0.5), ("c", 0.1)), _RANKING),  # not sorted
        ([_OBJECT], [{**_OBJECT, "box": {**_BOX, "xmax": 13}}]),
        ([_OBJECT], [{**_OBJECT, "label": "dog"}]),
        ([{"score": 0.5, "token": 1, "token_str": "x"}], [{"score": 0.5, "token": 1, "token_str": "y"}]),
        ([{"generated_text": "a"}], [{"generated_text": "b"}]),
    ],
)
def test_every_other_difference_is_a_problem(found: Any, expected: Any) -> None:
    assert problems_between(found, expected, _ROW)
