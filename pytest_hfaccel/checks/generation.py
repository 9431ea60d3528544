"""Check `generation`: the greedy tokens are the reference's, with and without a cache, and what `forward` predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless, skipped
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import generates
from pytest_hfaccel.numerics.budgets import ALLOWED_FACTOR
from pytest_hfaccel.numerics.compare import difference
from pytest_hfaccel.numerics.tolerances import SECOND_CHANCE_FACTOR, tolerance_of

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.numerics.reference import Continuation

NEW_TOKENS = 8
_SAME_LOGITS = 1e-5
"""Rel-L2 between two computations of the reference. Of 175 classes the equal ones are within 3e-8 (fp32: 2e-7), those
with other positions beyond 0.6."""
_WAYS = {"with_cache": True, "without_cache": False}


@built_in("generation", applies=lambda cell: generates(cell.model))
def generation(context: CheckContext) -> CheckOutcome:
    """Greedy tokens equal the reference's with and without cache, up to the first tie within the dtype's rounding.

    And the reference's `generate` continues the prompt as its `forward` predicts. The measure `judged` counts
    the tokens whose choice rounding cannot turn: only those say anything. With `--hf-budget enforce` rounding explains
    no more than what it must cost this model.
    """
    inputs = context.sample.generate
    if inputs is None:
        return skipped("the sample has no inputs for generate")
    measures: dict[str, Any] = {"new_tokens": NEW_TOKENS}
    problems, unsupported = [], {}
    for way, use_cache in _WAYS.items():
        try:
            tokens = context.loaded.generate(inputs, max_new_tokens=NEW_TOKENS, use_cache=use_cache)
        except NotImplementedError as error:
            unsupported[way] = measures[way] = f"not supported: {error}"
            continue
        of_way, measures[way], judged = _token_problems(context, tokens)
        measures.setdefault("judged", {})[way] = judged
        problems += [f"{way.replace('_', ' ')}: {problem}" for problem in of_way]
    if problems:
        problems += filter(None, [_budget_in_words(context)])
    if len(unsupported) == len(_WAYS):
        return skipped("; ".join(unsupported.values()), **measures)
    if not bool(context.reference.continuation(NEW_TOKENS).step_logits.isnan().any()):
        problems += _first_token_problems(context, measures)
    else:
        problems.append("the logits that the reference chose its tokens by hold NaN: equal tokens mean nothing")
    if context.reference.generation_reason:
        measures["reference_reason"] = context.reference.generation_reason
    return passed_unless("\n".join(problems), **measures)


def _first_token_problems(context: CheckContext, measures: dict[str, Any]) -> list[str]:
    """Compare what the reference chose its first token by with what its `forward` predicts after the prompt."""
    continuation = context.reference.continuation(NEW_TOKENS)
    if continuation.prompt_logits is None:
        measures["forward"] = f"not compared: {continuation.prompt_reason}"
        return []
    first = difference("logits", continuation.step_logits[:, 0], continuation.prompt_logits)
    measures["first_token_rel_l2"] = first.rel_l2
    if not first.problem and first.rel_l2 <= _SAME_LOGITS:
        return []
    return [
        "generate chooses the first token by other logits than forward gives for the prompt, "
        f"{first.problem or f'rel-L2 {first.rel_l2:.3g}'}: "
        "it hands the model other positions or another mask, on every device"
    ]


def _token_problems(context: CheckContext, tokens: torch.Tensor) -> tuple[list[str], str, str]:
    """Return what is wrong with the tokens, what is recorded of them, and how many of how many are judged.

    Of each row the first token that differs counts; what follows is not compared: it continues another text. A token is
    judged where the reference prefers it to any other by more than rounding explains.
    """
    continuation = context.reference.continuation(NEW_TOKENS)
    expected = continuation.tokens
    if tokens.shape != expected.shape:
        return (
            [f"tokens of shape {tuple(tokens.shape)}, the reference has {tuple(expected.shape)}"],
            "wrong shape",
            "none",
        )
    problems, divergences, judged, compared = [], [], 0, 0
    for row in range(tokens.shape[0]):
        steps = (tokens[row] != expected[row]).nonzero()
        until = int(steps[0]) + 1 if len(steps) else expected.shape[1]
        compared += until
        judged += sum(_is_judged(context, continuation, row, step) for step in range(until))
        if not len(steps):
            continue
        step = int(steps[0])
        right, actual = int(expected[row, step]), int(tokens[row, step])
        logits = continuation.step_logits[row, step]
        gap, allowed = float(logits[right] - logits[actual]), _allowed_gap(context, logits, right)
        divergence = (
            f"row {row}, token {step}: {actual} instead of {right}; the reference's logits are {gap:.3g} apart, "
            f"rounding explains {allowed:.3g}"
        )
        divergences.append(divergence)
        if not gap <= allowed:
            problems.append(divergence)
    return problems, "; ".join(divergences) or "equal", f"{judged} of {compared}"


def _is_judged(context: CheckContext, continuation: Continuation, row: int, step: int) -> bool:
    """Whether the reference prefers its token by more than the limits allow; what `generate` forces is not judged."""
    logits, right = continuation.step_logits[row, step], int(continuation.tokens[row, step])
    others = logits.clone()
    others[right] = -float("inf")
    margin = float(logits[right] - others.max())
    # Without the second chance, whose error of the dtype on the CPU is worth measuring only for tokens that differ.
    return margin > 0.0 and margin > 2 * min(_by_tolerance(context, logits, right), _by_budget(context))


def _allowed_gap(context: CheckContext, logits: torch.Tensor, token: int) -> float:
    """The gap that rounding can close: both logits may be off, in opposite directions."""
    one_sided = _by_tolerance(context, logits, token)
    if tolerance_of(context.cell).second_chance:
        rounding = context.reference.error_of(context.cell.dtype).get("logits")
        if rounding is not None and not rounding.problem:
            one_sided = max(one_sided, SECOND_CHANCE_FACTOR * rounding.max_abs)
    return 2 * min(one_sided, _by_budget(context))


def _by_tolerance(context: CheckContext, logits: torch.Tensor, token: int) -> float:
    """How far the tolerance of the dtype lets a logit be off."""
    tolerance = tolerance_of(context.cell)
    finite = logits[logits.isfinite()]
    if tolerance.rtol is None or tolerance.atol is None:  # int8: only its relative error over the leaf is limited
        return tolerance.rel_l2 * float(finite.std())
    scale = max(1.0, float(finite.abs().max()))
    return tolerance.atol * scale + tolerance.rtol * float(logits[token].abs())


def _by_budget(context: CheckContext) -> float:
    """How far `--hf-budget enforce` lets a logit be off: the budget of `forward`, or anything where there is none."""
    if context.budget_request.when != "enforce":
        return float("inf")
    largest = context.reference.budget_of(context.cell.dtype).largest.get("logits")
    return float("inf") if largest is None else ALLOWED_FACTOR * largest


def _budget_in_words(context: CheckContext) -> str:
    """What a failure says of what rounding must cost; empty where nobody asked or nothing is known."""
    if context.budget_request.when == "off":
        return ""
    dtype = context.cell.dtype
    budget = context.reference.budget_of(dtype, is_rough=context.budget_request.when == "failures")
    largest = budget.largest.get("logits")
    if largest is None:
        return ""
    return f"rounding to {dtype} must cost a logit of forward up to {largest:.3g} (the largest with emulated rounding)"
