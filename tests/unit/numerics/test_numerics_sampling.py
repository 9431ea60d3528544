"""Several inputs: how they are drawn, what a count of failures says, and what differing logits mean for tokens."""

from __future__ import annotations

import math

import pytest
import torch

from pytest_hfaccel.checks import planted
from pytest_hfaccel.core.results import Cause, Status
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.numerics.sampling import bound_of_failures, compare_tokens, vary_inputs
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("failed", "count", "bound"), [(0, 8, 0.3123), (0, 60, 0.0487), (1, 5, 0.6574), (3, 3, 1.0)])
def test_the_bound_is_that_of_clopper_and_pearson(failed: int, count: int, bound: float) -> None:
    assert bound_of_failures(failed, count) == pytest.approx(bound, abs=1e-4)
    if failed < count:
        from scipy.stats import beta

        assert bound_of_failures(failed, count) == pytest.approx(beta.ppf(0.95, failed + 1, count - failed))


def test_ordinary_tokens_become_others_and_reserved_ones_stay() -> None:
    ids = torch.tensor([[2, 10, 11, 7, 7, 7, 12, 13, 3, 0, 0]])
    mask = (ids != 0).long()
    varied = [
        vary_inputs({"input_ids": ids, "attention_mask": mask}, seed, frozenset({0, 2, 3})) for seed in range(1, 9)
    ]
    for one in varied:
        kept = one["input_ids"] == ids
        assert kept[0, [0, 3, 4, 5, 8, 9, 10]].all()  # first, run of equal tokens, separator, padding
        assert not torch.isin(one["input_ids"][~kept], torch.tensor([0, 2, 3])).any()
        assert int(one["input_ids"].max()) <= 13
        assert torch.equal(one["attention_mask"], mask)
    assert len({tuple(one["input_ids"][0].tolist()) for one in varied}) > 4
    again = vary_inputs({"input_ids": ids}, 1, frozenset({0, 2, 3}))["input_ids"]
    assert torch.equal(again, varied[0]["input_ids"])


def test_pictures_keep_their_range_and_what_cannot_be_varied_is_refused() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    varied = vary_inputs({"pixel_values": pixels}, 1, frozenset())["pixel_values"]
    assert not torch.equal(varied, pixels)
    assert pixels.min() <= varied.min()
    assert varied.max() <= pixels.max()
    with pytest.raises(ValueError, match="none of labels can be varied"):
        vary_inputs({"labels": torch.ones(2, 4, dtype=torch.long)}, 1, frozenset())


def test_divergence_and_top1_of_known_distributions() -> None:
    right = torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.3, 0.1]]).double().log()
    actual = torch.tensor([[0.5, 0.25, 0.25], [0.3, 0.6, 0.1]]).double().log() + 5.0  # a constant changes nothing
    measured = compare_tokens(actual, right)
    divergence = 0.6 * math.log(2) - 0.3 * math.log(2)
    assert measured["kl_mean"] == pytest.approx(divergence / 2)
    assert measured["kl_99.9"] == pytest.approx(divergence, rel=2e-3)
    assert measured["same_top1"] == 0.5
    assert measured["same_top1_se"] == pytest.approx(math.sqrt(0.25 / 2))


def test_all_inputs_are_compared_and_bounded(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    alone = run("parity", context).measures
    assert "samples" not in alone
    assert 0.0 <= alone["tokens"]["kl_mean"] < 1e-6
    assert alone["tokens"]["positions"] == 14
    context.budget_request = BudgetRequest("report", samples=5)
    outcome = run("parity", context)
    assert outcome.status == Status.PASSED, outcome.reason
    samples = outcome.measures["samples"]
    assert (samples["count"], samples["failed"], samples["failing_at_most"]) == (5, 0, 0.451)
    assert len(set(samples["rel_l2"].values())) == 5
    assert all(0.3 < ratio < 2.5 for ratio in samples["ratios"].values()), samples
    assert outcome.measures["tokens"]["positions"] == 5 * 14


def test_an_error_on_another_input_alone_fails_and_is_counted(bert: TinySource) -> None:
    context = TinyContext(bert)
    usual = context.sample.forward["input_ids"]

    def forward(right: planted.Forward, inputs: planted.Tensors) -> dict[str, torch.Tensor]:
        wrong = 1.0 if torch.equal(inputs["input_ids"], usual) else 1.01
        return {name: leaf * wrong for name, leaf in right(inputs).items()}

    context.loaded = planted.with_forward(context.loaded, forward)
    assert run("parity", context).status == Status.PASSED
    context.budget_request = BudgetRequest("failures", samples=3)
    outcome = run("parity", context)
    assert outcome.status == Status.FAILED
    assert outcome.cause != Cause.NUMERICS
    assert "input 1: logits: rel-L2 0.01" in (outcome.reason or "")
    assert "2 of 3 inputs failed; with 95% confidence at most 98% of all inputs do" in (outcome.reason or "")
