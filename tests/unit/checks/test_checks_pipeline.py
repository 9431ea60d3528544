"""The checks that use a pipeline: equal to the direct way, and making sense of its task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.checks.base import Claim
from pytest_hfaccel.checks.pipeline_expected import GREEDY
from pytest_hfaccel.checks.task_sense import groups_paraphrases
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Cell, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
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


def test_an_untrained_model_makes_no_sense(bert: TinySource) -> None:
    outcome = run("task_sense", TinyContext(bert))
    assert outcome.status == Status.FAILED
    assert "fills 'Paris is the capital of [MASK].' with 'france'" in (outcome.reason or "")


def test_the_claims_of_a_model_class_module_count(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    context.cell = SimpleNamespace(model=SimpleNamespace(task="mask-generation"))  # type: ignore[assignment]
    assert run("task_sense", context).status == Status.SKIPPED
    context.claims = [Claim("sees the cat", True, {"score": 0.9})]
    outcome = run("task_sense", context)
    assert outcome.status == Status.PASSED
    assert outcome.measures["claims"] == {"sees the cat": {"holds": True, "score": 0.9}}
    context.claims = [*context.claims, Claim("sees the dog", False)]
    assert "it does not hold that the model sees the dog" in (run("task_sense", context).reason or "")


def _by_topic(text: str) -> list[list[list[float]]]:
    return [[[1.0, 0.0]]] if "guitar" in text or "cat" in text else [[[0.0, 1.0]]]


def _by_wording(text: str) -> list[list[list[float]]]:
    return [[[0.0, 1.0]]] if text.startswith(("A man plays", "A cat")) else [[[1.0, 0.0]]]


@pytest.mark.parametrize(("features", "holds"), [(_by_topic, True), (_by_wording, False)])
def test_paraphrases_must_be_closer_than_other_sentences(features: Any, holds: bool) -> None:
    pipe: Any = partial(features)
    pipe.tokenizer = SimpleNamespace(get_vocab=lambda: {"man": 0})
    claims = list(groups_paraphrases(SimpleNamespace(pipe=pipe)))  # type: ignore[arg-type]
    assert [claim.holds for claim in claims] == [holds, holds]
