"""Emulated rounding predicts what a dtype costs a model, and `parity` reports real errors in multiples of it."""

from __future__ import annotations

import pytest
import torch

from pytest_hfaccel.checks import planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.numerics.budgets import BudgetRequest, emulate, round_to
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.tolerances import Tolerance
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("source", ["bert", "gpt2"])
def test_honest_arithmetic_costs_about_its_budget(source: str, dtype: str, request: pytest.FixtureRequest) -> None:
    context = TinyContext(request.getfixturevalue(source), dtype)
    context.budget_request = BudgetRequest("report")
    outcome = run("parity", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert 0.3 < outcome.measures["budget"]["ratio"] < 2.0, outcome.measures


@pytest.mark.parametrize("terms", [64, 1024])
def test_the_sum_of_many_products_in_fp32_has_an_error_of_its_own(terms: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(terms, 256, bias=False).double()
    layer.weight.data = round_to(layer.weight.data, "fp32")
    inputs = round_to(torch.randn(64, terms, dtype=torch.float64), "fp32")
    with torch.inference_mode():
        budget = emulate("fp32", layer, lambda: {"y": layer(inputs)}, {"y": layer(inputs)})
        # Summed one after the other, as a runtime may at worst.
        total = torch.zeros(64, 256)
        for k in range(terms):
            total = total + inputs[:, k, None].float() * layer.weight[None, :, k].float()
    real = compare({"y": total}, {"y": layer(inputs).detach()}, Tolerance(1.0)).verdicts[0].difference.rel_l2
    assert 0.5 < budget.ratios({"y": real})["y"] < 2.0


def test_the_model_is_itself_again_after_the_emulation(bert: TinySource) -> None:
    reference = TinyContext(bert, "bf16").reference
    reference.budget_of("bf16")
    with reference.model() as loaded:
        again = loaded.forward(bert.sample().forward)
    assert all(torch.equal(leaf, reference.outputs[name]) for name, leaf in again.items())


def test_a_budget_refuses_what_the_table_allows_and_only_when_it_is_enforced(bert: TinySource) -> None:
    context = TinyContext(bert, "fp32")
    context.loaded = planted.with_forward(
        context.loaded, lambda right, inputs: {name: leaf * (1 + 5e-6) for name, leaf in right(inputs).items()}
    )
    context.budget_request = BudgetRequest("report")
    reported = run("parity", context)
    assert reported.status == Status.PASSED
    assert reported.measures["budget"]["ratio"] > 4
    context.budget_request = BudgetRequest("enforce")
    enforced = run("parity", context)
    assert enforced.status == Status.FAILED
    assert "times what fp32 must cost here" in (enforced.reason or "")


def test_a_failure_says_how_many_times_too_large_the_error_is(bert: TinySource) -> None:
    context = TinyContext(bert)
    context.loaded = planted.rounding(context.loaded, "fp16")
    outcome = run("parity", context)
    assert outcome.status == Status.FAILED
    assert "times what fp32 must cost this model on this input" in (outcome.reason or "")
    context.budget_request = BudgetRequest("off")
    assert "budget" not in run("parity", context).measures


def test_without_a_budget_there_is_a_reason(bert: TinySource) -> None:
    budget = TinyContext(bert).reference.budget_of("int8")
    assert not budget.costs
    assert "int8" in budget.reason
