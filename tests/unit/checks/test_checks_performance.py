"""Measuring: enough runs, honest order statistics, and only where results are right."""

from __future__ import annotations

import pytest

from pytest_hfaccel.checks.performance import measure, summary_of
from pytest_hfaccel.results import CheckOutcome, Status
from tests.unit.checks.support import TinyContext, TinySource, run, with_forward

pytestmark = pytest.mark.slow


def test_quick_runs_are_repeated_for_the_asked_time() -> None:
    calls: list[int] = []
    times = measure(lambda: calls.append(1), seconds=0.0)
    assert len(times) == 10
    assert len(calls) == 13, "three warm-up runs are not among the times"
    assert len(measure(lambda: None, seconds=10.0)) == 500


def test_the_summary_is_in_milliseconds_and_ordered() -> None:
    found = summary_of([0.001 * number for number in range(1, 102)])
    assert found["runs"] == 101
    assert found["min_ms"] == pytest.approx(1.0)
    assert found["p5_ms"] == pytest.approx(6.0)
    assert found["median_ms"] == pytest.approx(51.0)
    assert found["iqr_ms"] == pytest.approx(50.0)
    assert found["p95_ms"] == pytest.approx(96.0)
    assert found["p99_ms"] == pytest.approx(100.0)


def test_a_generating_model_also_gets_tokens_per_second(gpt2: TinySource) -> None:
    outcome = run("performance", TinyContext(gpt2))
    assert outcome.status == Status.PASSED
    assert outcome.measures["use_cache"] is True
    expected = 1e3 * 8 * 2 / outcome.measures["generate_median_ms"]
    assert outcome.measures["tokens_per_second"] == pytest.approx(expected)
    assert outcome.measures["samples_per_second"] == pytest.approx(2e3 / outcome.measures["median_ms"])


def test_performance_is_not_measured_when_parity_failed(bert: TinySource) -> None:
    context = TinyContext(bert)
    context.outcomes["parity"] = CheckOutcome("parity", Status.FAILED)
    outcome = run("performance", context)
    assert outcome.status == Status.SKIPPED
    context.outcomes.clear()
    wrong = with_forward(context, lambda right, inputs: {"logits": 2 * right(inputs)["logits"]})
    assert run("performance", wrong).status == Status.SKIPPED
