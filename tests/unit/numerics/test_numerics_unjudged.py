"""Outputs that honest rounding takes beyond the limit: no pass, no blame, and no way out for a device that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForMaskedLM

from pytest_hfaccel.checks import planted
from pytest_hfaccel.core.results import Cause, Status
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.numerics.compare import Comparison, compare
from pytest_hfaccel.numerics.tolerances import Tolerance
from tests.unit.checks.support import TinyContext, TinySource, run

pytestmark = pytest.mark.slow

FREQUENCY = 48.0
"""The sine of a logit times this is off by about half its size in bf16."""


class Amplifying(BertForMaskedLM):  # type: ignore[misc]
    """Has one more output, `amplified`, which rounding ruins: for the tokens of the sample, or for all."""

    for_tokens: torch.Tensor | None = None

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        outputs = super().forward(input_ids, **inputs)
        is_steep = self.for_tokens is None or torch.equal(input_ids, self.for_tokens)
        outputs["amplified"] = torch.sin(outputs["logits"] * (FREQUENCY if is_steep else 1.0))
        return outputs


class AmplifyingSource(TinySource):
    """The tiny BERT with that output."""

    def __init__(self, directory: Path, *, only_sample: bool) -> None:
        super().__init__("BertForMaskedLM", directory)
        self._only_sample = only_sample

    def torch_model_in(self, directory: Path, dtype: str) -> Any:
        model = super().torch_model_in(directory, dtype)
        model.__class__ = Amplifying
        model.for_tokens = self.sample().forward["input_ids"] if self._only_sample else None
        return model


@pytest.fixture(scope="module")
def for_sample(tmp_path_factory: pytest.TempPathFactory) -> AmplifyingSource:
    return AmplifyingSource(tmp_path_factory.mktemp("sample"), only_sample=True)


@pytest.fixture(scope="module")
def for_all(tmp_path_factory: pytest.TempPathFactory) -> AmplifyingSource:
    return AmplifyingSource(tmp_path_factory.mktemp("all"), only_sample=False)


def enforcing(source: TinySource, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> TinyContext:
    """A cell in bf16 under `--hf-budget enforce`, whose device may compute `amplified` wrongly."""
    context = TinyContext(source, "bf16")
    context.budget_request = BudgetRequest("enforce")
    if change is not None:
        context.loaded = planted.with_forward(
            context.loaded,
            lambda right, inputs: {
                name: change(leaf) if name == "amplified" else leaf for name, leaf in right(inputs).items()
            },
        )
    return context


WRONG = {
    "zeros": torch.zeros_like,
    "negated": torch.neg,
    "doubled": lambda leaf: 2 * leaf,
    "rows exchanged": lambda leaf: leaf.flip(0),
    "shifted": lambda leaf: leaf.roll(1, -1),
    "a constant": lambda leaf: torch.full_like(leaf, 0.7),
}


def test_what_the_sample_cannot_judge_is_judged_on_another_input(for_sample: AmplifyingSource) -> None:
    outcome = run("parity", enforcing(for_sample))
    assert outcome.status == Status.PASSED, outcome.reason
    assert list(outcome.measures["not_judged"]) == ["0"]
    assert "bf16 must cost rel-L2" in outcome.measures["not_judged"]["0"]["amplified"]
    assert outcome.measures["samples"]["rel_l2"].keys() == {"0", "1"}
    assert outcome.measures["samples"]["count"] == 1


def test_what_no_input_can_judge_is_skipped_with_the_numbers(for_all: AmplifyingSource) -> None:
    outcome = run("parity", enforcing(for_all))
    assert outcome.status == Status.SKIPPED
    assert "amplified cannot be judged on any of 9 inputs" in (outcome.reason or "")
    assert "allowed 0.4" in (outcome.reason or "")
    assert len(outcome.measures["not_judged"]) == 9


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("where", ["for_sample", "for_all"])
def test_a_device_that_computes_it_wrongly_does_not_escape(
    where: str, wrong: str, request: pytest.FixtureRequest
) -> None:
    outcome = run("parity", enforcing(request.getfixturevalue(where), WRONG[wrong]))
    assert outcome.status == Status.FAILED, outcome.measures
    assert outcome.cause != Cause.NUMERICS
    assert "amplified" in (outcome.reason or "")


def test_other_outputs_are_judged_as_ever(for_all: AmplifyingSource) -> None:
    context = enforcing(for_all)
    context.loaded = planted.with_forward(
        context.loaded,
        lambda right, inputs: {name: leaf * 1.2 if name == "logits" else leaf for name, leaf in right(inputs).items()},
    )
    outcome = run("parity", context)
    assert outcome.status == Status.FAILED
    assert "logits: rel-L2 0.2" in (outcome.reason or "")
    assert "amplified" not in (outcome.reason or "").partition("\n")[0]


def test_without_enforce_it_fails_with_rounding_as_the_cause(for_all: AmplifyingSource) -> None:
    context = enforcing(for_all)
    context.budget_request = BudgetRequest("failures")
    outcome = run("parity", context)
    assert outcome.status == Status.FAILED
    assert outcome.cause == Cause.NUMERICS


def test_without_other_inputs_the_sample_says_so(for_all: AmplifyingSource, monkeypatch: pytest.MonkeyPatch) -> None:
    context = enforcing(for_all)

    def none(_count: int) -> Any:
        raise ValueError("none of pixel_values can be varied")

    monkeypatch.setattr(context.reference, "with_varied_inputs", none)
    outcome = run("parity", context)
    assert outcome.status == Status.SKIPPED
    assert "amplified cannot be judged on 1 inputs" in (outcome.reason or "")
    assert "none of pixel_values can be varied" in (outcome.reason or "")


@pytest.mark.parametrize("where", ["for_sample", "for_all"])
def test_the_canary_relies_on_the_outputs_that_can_be_judged(where: str, request: pytest.FixtureRequest) -> None:
    outcome = run("canary", enforcing(request.getfixturevalue(where)))
    assert outcome.status == Status.PASSED, outcome.reason
    assert list(outcome.measures["not_judged"]) == ["amplified"]


def judged(error: float, cost: float, cost_of_many: float) -> tuple[Comparison, int]:
    """Compare numbers with a rel-L2 of `error`, allowed 0.02; return how often many passes were made, too."""
    reference = torch.ones(1000, dtype=torch.float64)
    asked = []

    def more() -> dict[str, float]:
        asked.append(1)
        return {"y": cost_of_many}

    compared = compare({"y": reference * (1 + error)}, {"y": reference}, Tolerance(0.02, second_chance=False))
    return compared.within({"y": cost}, 4.0, "bf16", more), len(asked)


def test_nothing_is_refused_as_rounding_before_many_passes_were_made() -> None:
    refused, asked = judged(0.03, cost=0.015, cost_of_many=0.019)
    assert refused.is_refused
    assert asked == 1
    rare, _ = judged(0.03, cost=0.015, cost_of_many=0.021)
    assert not rare.is_refused
    assert not rare.ok
    assert rare.unjudged.keys() == {"y"}
    far, asked = judged(0.07, cost=0.015, cost_of_many=0.5)  # beyond 4 times what it costs
    assert far.is_refused
    assert asked == 0
    near, asked = judged(0.019, cost=0.5, cost_of_many=0.5)  # as close as the table asks for: whoever is, is right
    assert near.ok
    assert asked == 0
