"""The check `performance`: only where results are right, at every point, with what reports show of it."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, Point, summary_of
from pytest_hfaccel.benchmark.measuring import PerformanceRequest
from pytest_hfaccel.benchmark.timing import TimingBudget
from pytest_hfaccel.core.results import CheckOutcome, Status
from tests.unit.checks.support import TinyContext, TinySource, run, with_forward
from tests.unit.history.store_samples import FULL, MEASURED

pytestmark = pytest.mark.slow

ONCE = TimingBudget(warm_up=1, runs=3)


def context_of(source: TinySource, *points: Point, **options: Any) -> TinyContext:
    """The context of a check that knows where and how to measure."""
    context = TinyContext(source)
    context.performance_request = PerformanceRequest(points or (Point(1),), ONCE, **options)
    return context


def measured(outcome: CheckOutcome) -> list[Measurement]:
    return [Measurement.from_json(one) for one in outcome.measures["measurements"]]


def test_every_point_is_measured_and_the_first_is_shown(bert: TinySource) -> None:
    outcome = run("performance", context_of(bert, Point(1, 8), Point(4, 16)))
    assert outcome.status == Status.PASSED
    found = measured(outcome)
    assert [(one.batch, one.length) for one in found] == [(1, 8), (4, 16)]
    assert {one.weights for one in found} == {"tiny"}
    shown = {name: value for name, value in outcome.measures.items() if name != "measurements"}
    assert shown == summary_of(found[0])
    assert shown["samples_per_second"] == pytest.approx(1e3 / shown["median_ms"])
    assert "weights" in found[0].memory_source


def test_without_a_length_it_is_that_of_the_sample(bert: TinySource) -> None:
    (found,) = measured(run("performance", context_of(bert, Point(2))))
    assert (found.batch, found.length) == (2, bert.sample().forward["input_ids"].shape[1])


def test_a_generating_model_also_gets_times_of_tokens(gpt2: TinySource) -> None:
    outcome = run("performance", context_of(gpt2, Point(2, 8)))
    assert outcome.measures["use_cache"] is True
    assert outcome.measures["first_token_ms"] > 0
    per_token = outcome.measures.get("per_token_ms")
    if per_token is not None:
        assert outcome.measures["tokens_per_second"] == pytest.approx(2e3 / per_token)


def test_a_prompt_that_leaves_no_room_keeps_the_forward_pass(gpt2: TinySource) -> None:
    (found,) = measured(run("performance", context_of(gpt2, Point(1, 64))))
    assert found.first_token_ms is None
    assert found.details["not_generated"]
    assert found.latency.runs == 3


def test_the_timer_of_the_caller_is_used(bert: TinySource) -> None:
    calls: list[int] = []

    def timer(work: Any, budget: TimingBudget) -> list[float]:
        work()
        calls.append(budget.runs or 0)
        return [0.25, 0.25]

    outcome = run("performance", context_of(bert, timer=timer))
    assert calls == [3]
    assert outcome.measures["median_ms"] == 250.0


def test_untimed_it_runs_once_and_measures_nothing(bert: TinySource) -> None:
    context = context_of(bert, Point(3, 8), timed=False)
    sizes: list[int] = []

    def counted(right: Any, inputs: Any) -> Any:
        sizes.append(inputs["input_ids"].shape[0])
        return right(inputs)

    context.outcomes["parity"] = CheckOutcome("parity")
    outcome = run("performance", with_forward(context, counted))
    assert sizes == [3]
    assert outcome.measures == {"batch": 3, "length": 8, "timed": False}


def test_performance_is_not_measured_when_parity_failed(bert: TinySource) -> None:
    context = context_of(bert)
    context.outcomes["parity"] = CheckOutcome("parity", Status.FAILED)
    outcome = run("performance", context)
    assert outcome.status == Status.SKIPPED
    context.outcomes.clear()
    wrong = with_forward(context, lambda right, inputs: {"logits": 2 * right(inputs)["logits"]})
    assert run("performance", wrong).status == Status.SKIPPED


def test_wrong_results_are_measured_only_on_request(bert: TinySource) -> None:
    context = context_of(bert, only_right=False)
    context.outcomes["parity"] = CheckOutcome("parity", Status.FAILED)
    assert run("performance", context).status == Status.PASSED


def test_what_is_not_known_is_not_shown() -> None:
    assert "first_token_ms" not in summary_of(MEASURED)
    assert summary_of(FULL)["weights"] == "pretrained"
