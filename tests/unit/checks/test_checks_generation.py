"""The check `generation`: equal tokens, or a divergence that rounding explains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.numerics.reference import compute_reference
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow


def test_a_right_model_generates_what_the_reference_does(gpt2: TinySource) -> None:
    outcome = run("generation", TinyContext(gpt2))
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures.pop("first_token_rel_l2") < 1e-12
    judged = outcome.measures.pop("judged")
    assert set(judged) == {"with_cache", "without_cache"}
    assert judged["with_cache"].endswith(" of 16")
    assert outcome.measures == {"new_tokens": 8, "with_cache": "equal", "without_cache": "equal"}


def _generating(context: TinyContext, generate: Any) -> TinyContext:
    context.loaded = Planted(context.loaded, generate=generate)
    return context


def test_a_wrong_token_fails_with_row_step_and_gap(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    right = context.loaded.generate

    def wrong(inputs: Any, **options: Any) -> torch.Tensor:
        tokens = right(inputs, **options).clone()
        worst = context.reference.continuation(8).step_logits[1, 2].argmin()
        tokens[1, 2] = worst
        return tokens

    outcome = run("generation", _generating(context, wrong))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("with cache: row 1, token 2: ")


def test_a_tie_may_go_either_way_and_what_follows_it_is_another_text(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    logits = context.reference.continuation(8).step_logits
    best = context.reference.continuation(8).tokens
    second = logits[0, 3].topk(2).indices[1]
    logits[0, 3, second] = logits[0, 3, best[0, 3]] - 1e-7

    def diverging(_inputs: Any, **_options: Any) -> torch.Tensor:
        tokens = best.clone()
        tokens[0, 3] = second
        tokens[0, 4:] = 0
        return tokens

    outcome = run("generation", _generating(context, diverging))
    assert outcome.status == Status.PASSED, outcome.reason
    assert "row 0, token 3" in outcome.measures["with_cache"]
    # Four of row 0, the tie among them, and eight of row 1; a tie is no evidence.
    assert outcome.measures["judged"]["with_cache"] == "11 of 12"


def test_enforced_budgets_judge_smaller_gaps_and_never_excuse_a_larger_one(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    best = context.reference.continuation(8).tokens
    logits = context.reference.continuation(8).step_logits
    second = logits[0, 3].topk(2).indices[1]

    def diverging(_inputs: Any, **_options: Any) -> torch.Tensor:
        tokens = best.clone()
        tokens[0, 3] = second
        return tokens

    _generating(context, diverging)
    logits[0, 3, second] = logits[0, 3, best[0, 3]] - 1e-4  # within the tolerance, not within what fp32 must cost
    assert run("generation", context).status == Status.PASSED
    context.budget_request = BudgetRequest("enforce")
    narrow = run("generation", context)
    assert narrow.status == Status.FAILED
    assert "rounding to fp32 must cost a logit of forward up to" in (narrow.reason or "")
    logits[0, 3, second] = logits[0, 3, best[0, 3]] - 1.0  # fails with and without
    assert run("generation", context).status == Status.FAILED
    context.budget_request = BudgetRequest("off")
    wide = run("generation", context)
    assert wide.status == Status.FAILED
    assert "must cost" not in (wide.reason or "")


def test_one_unsupported_way_is_recorded_and_two_skip_the_check(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    right = context.loaded.generate

    def without_cache(inputs: Any, *, use_cache: bool, max_new_tokens: int) -> torch.Tensor:
        if use_cache:
            raise NotImplementedError("no cache here")
        return right(inputs, use_cache=False, max_new_tokens=max_new_tokens)

    def never(_inputs: Any, **_options: Any) -> torch.Tensor:
        raise NotImplementedError("cannot generate")

    outcome = run("generation", _generating(context, without_cache))
    assert outcome.status == Status.PASSED
    assert outcome.measures["with_cache"] == "not supported: no cache here"
    assert run("generation", _generating(context, never)).status == Status.SKIPPED


def _with_other_forward(source: TinySource) -> TinyContext:
    """Return a context whose reference generates like the model, but runs forward with later positions."""
    context = TinyContext(source)

    def load(dtype: str) -> Any:
        right = context._load(dtype)
        model = right.pipeline_model()

        def forward(inputs: Any) -> Any:
            positions = torch.arange(inputs["input_ids"].shape[1])[None] + 3
            with torch.no_grad():
                return {"logits": model(**inputs, position_ids=positions).logits}

        return Planted(right, forward=forward)

    context._reference = compute_reference(source, load, context.on_cpu)
    return context


def test_generate_must_begin_as_forward_predicts(gpt2: TinySource) -> None:
    outcome = run("generation", _with_other_forward(gpt2))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith("generate chooses the first token by other logits than forward gives")
    assert outcome.measures["with_cache"] == outcome.measures["without_cache"] == "equal"


def test_padded_prompts_say_nothing_about_forward(gpt2: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = gpt2.sample()
    assert sample.generate is not None
    mask = sample.generate["attention_mask"].clone()
    mask[0, 0] = 0
    monkeypatch.setattr(gpt2, "_sample", replace(sample, generate={**sample.generate, "attention_mask": mask}))
    outcome = run("generation", _with_other_forward(gpt2))
    assert outcome.status == Status.PASSED, outcome.reason
    assert "first_token_rel_l2" not in outcome.measures
    assert outcome.measures["forward"] == ("not compared: the prompts are padded, which moves positions")


def test_a_forward_that_takes_other_inputs_is_told(gpt2: TinySource, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = gpt2.sample().forward
    # The sample's two inputs are one object: give `generate` its own.
    monkeypatch.setattr(gpt2, "_sample", replace(gpt2.sample(), generate=dict(sample)))
    context = TinyContext(gpt2)

    def load(dtype: str) -> Any:
        right = context._load(dtype)

        def forward(inputs: Any) -> Any:
            if inputs is not sample:
                raise TypeError("forward() got an unexpected keyword argument")
            return right.forward(inputs)

        return Planted(right, forward=forward)

    context._reference = compute_reference(gpt2, load, context.on_cpu)
    outcome = run("generation", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["forward"] == (
        "not compared: forward does not take what generate does: "
        "TypeError: forward() got an unexpected keyword argument"
    )
    assert "reference_reason" not in outcome.measures, "its tokens are those of fp64"


def test_a_wrong_weight_changes_the_text(gpt2: TinySource) -> None:
    context = TinyContext(gpt2)
    with context.loaded.perturbed(WeightChange("transformer.ln_f.weight", 16, 100.0)):
        assert run("generation", context).status == Status.FAILED


def test_the_logits_are_those_the_tokens_were_chosen_by(gpt2: TinySource) -> None:
    reference = TinyContext(gpt2).reference
    assert reference.continuation(8).step_logits.dtype == torch.float64
    assert torch.equal(reference.continuation(8).step_logits.argmax(-1), reference.continuation(8).tokens)
