"""The check `pipeline`: equal to the direct way, and how two results are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checks.pipeline import GREEDY, problems_between
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Cell, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.numerics.tolerances import Tolerance
from pytest_hfaccel.registry.auto_classes import match_pairs
from tests.unit.checks.support import TinyContext, TinySource, run, with_forward

pytestmark = pytest.mark.slow


class WrongPipe:
    """A pipeline whose results are tampered with."""

    def __init__(self, pipe: Any, tamper: Any) -> None:
        self._pipe = pipe
        self._tamper = tamper

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._tamper(self._pipe(*arguments, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_pipeline_of_a_right_model_equals_the_direct_way(bert: TinySource, dtype: str) -> None:
    outcome = run("pipeline", TinyContext(bert, dtype))
    assert outcome.status == Status.PASSED, outcome.reason
    assert "token_str" in outcome.measures["result"]


def test_the_direct_way_begins_as_the_pipeline_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pipeline puts a text before XLNet's prompts, which shows in the eighth token of this checkpoint.
    for name in ("max_new_tokens", "min_new_tokens"):
        monkeypatch.setitem(GREEDY, name, 8)
    runner = Runner(RunConfig(cache=str(tmp_path)))
    cell = Cell(match_pairs("xlnet/XLNetLMHeadModel")[0], CPU, "fp32", WeightsChoice(Weights.TINY, "for a test"))
    outcome = runner.open(cell).check("pipeline")
    runner.close()
    assert outcome.status == Status.PASSED, outcome.reason


def _other_score(result: Any) -> Any:
    return [{**result[0], "score": result[0]["score"] + 0.1}, *result[1:]]


def _other_text(result: Any) -> Any:
    return [{**result[0], "sequence": "paris"}, *result[1:]]


@pytest.mark.parametrize("tamper", [_other_score, _other_text, lambda result: result[1:]])
def test_a_pipeline_with_another_result_fails(bert: TinySource, tamper: Any) -> None:
    context = TinyContext(bert)
    context.pipe = WrongPipe(context.pipe, tamper)
    assert run("pipeline", context).status == Status.FAILED


def test_a_pipeline_that_runs_another_model_fails(bert: TinySource) -> None:
    wrong = with_forward(TinyContext(bert), lambda right, inputs: {"logits": -right(inputs)["logits"]})
    assert run("pipeline", wrong).status == Status.FAILED


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
