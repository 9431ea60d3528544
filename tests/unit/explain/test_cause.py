"""What follows from experiments, as docs/explain.md states it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.explain import cause
from pytest_hfaccel.explain.cause import AGREES, DIFFERS, NOT_POSSIBLE, RULES, Experiment, decide

FAILS = Experiment(cause.AGAIN, DIFFERS)
NOT_AGAIN = Experiment(cause.AGAIN, AGREES)


def found(**outcomes: str) -> list[Experiment]:
    return [FAILS, *(Experiment(getattr(cause, name), outcome) for name, outcome in outcomes.items())]


OVERFLOW = Experiment(cause.TORCH_DTYPE, DIFFERS, finite=False)


WRONG_GRAPH = {"BUDGET": DIFFERS, "TORCH": AGREES, "ALONE": DIFFERS, "UNOPTIMISED": DIFFERS}

TIED = [Experiment(cause.AGAIN, DIFFERS, error=0.065), *found(**WRONG_GRAPH, INTERPRETED=DIFFERS)[1:]]


@pytest.mark.parametrize(
    ("dtype", "experiments", "expected"),
    [
        ("fp32", [NOT_AGAIN], Cause.UNDECIDED),
        ("fp32", found(PRODUCT=DIFFERS, BUDGET=AGREES), Cause.DRIVER),
        ("fp16", found(BUDGET=AGREES, TORCH=AGREES), Cause.NUMERICS),
        ("fp16", [*found(TORCH=AGREES), OVERFLOW], Cause.NUMERICS),
        ("fp16", found(TORCH_DTYPE=DIFFERS, TORCH=AGREES, INTERPRETED=AGREES), Cause.TRANSFORMERS),
        ("fp32", found(BUDGET=DIFFERS, TORCH=DIFFERS), Cause.TRANSFORMERS),
        ("fp32", found(KERNEL=DIFFERS, TORCH=DIFFERS), Cause.RUNTIME),
        ("fp32", found(BUDGET=DIFFERS, TORCH=AGREES, ALONE=AGREES, INTERPRETED=AGREES), Cause.OURS),
        ("fp32", found(**WRONG_GRAPH, CAPTURED=DIFFERS, INTERPRETED=DIFFERS), Cause.EXPORTER),
        ("fp32", found(**WRONG_GRAPH, CAPTURED=AGREES, INTERPRETED=DIFFERS), Cause.EXPORTER),
        ("fp32", found(**{**WRONG_GRAPH, "UNOPTIMISED": AGREES}, INTERPRETED=AGREES), Cause.RUNTIME),
        ("fp32", found(**WRONG_GRAPH, INTERPRETED=AGREES), Cause.RUNTIME),
        ("fp16", found(**WRONG_GRAPH, IN_FP32=AGREES), Cause.RUNTIME),
        ("fp32", found(**WRONG_GRAPH, CPU_DEVICE=AGREES), Cause.RUNTIME),
        ("fp32", found(**WRONG_GRAPH, INTERPRETED=NOT_POSSIBLE, OPERATOR=DIFFERS), Cause.RUNTIME),
        ("fp32", found(**WRONG_GRAPH, INTERPRETED=NOT_POSSIBLE, OPERATOR=AGREES), Cause.EXPORTER),
        ("fp32", found(**WRONG_GRAPH, INTERPRETED=NOT_POSSIBLE), Cause.UNDECIDED),
        ("fp32", [FAILS, Experiment(cause.LEAK, DIFFERS, leaf="ours")], Cause.OURS),
        ("fp32", [FAILS, Experiment(cause.LEAK, DIFFERS, leaf="transformers")], Cause.TRANSFORMERS),
        ("fp32", [*found(TORCH=AGREES), Experiment(cause.LEAK, DIFFERS, leaf="runtime")], Cause.RUNTIME),
        ("fp32", [NOT_AGAIN, Experiment(cause.LEAK, DIFFERS, leaf="transformers")], Cause.TRANSFORMERS),
        ("fp32", [NOT_AGAIN, Experiment(cause.LEAK, DIFFERS, leaf="runtime")], Cause.UNDECIDED),
        ("fp32", found(**WRONG_GRAPH, ATTENTION=DIFFERS, CAPTURED=DIFFERS), Cause.TRANSFORMERS),
        ("fp32", found(**WRONG_GRAPH, ATTENTION=AGREES, CAPTURED=DIFFERS), Cause.EXPORTER),
        ("fp32", [*TIED, Experiment(cause.TIES, DIFFERS, error=0.06)], Cause.TRANSFORMERS),
        ("fp32", [*TIED, Experiment(cause.TIES, DIFFERS, error=0.0006)], Cause.EXPORTER),
        ("fp32", [*TIED, Experiment(cause.TIES, AGREES, error=0.0)], Cause.EXPORTER),
        ("fp32", found(GENERATION=DIFFERS), Cause.TRANSFORMERS),
        ("fp32", found(GENERATION=DIFFERS, TORCH=AGREES), Cause.UNDECIDED),
        ("fp32", found(GENERATION=AGREES), Cause.UNDECIDED),
        ("fp32", found(TORCH=AGREES, VALID=DIFFERS), Cause.EXPORTER),
        ("fp32", found(TORCH=AGREES, VALID=AGREES), Cause.RUNTIME),
        ("fp32", found(TORCH=DIFFERS, VALID=AGREES), Cause.TRANSFORMERS),
        ("fp32", [FAILS], Cause.UNDECIDED),
    ],
)
def test_the_cause_that_follows(dtype: str, experiments: list[Experiment], expected: Cause) -> None:
    verdict = decide("parity", experiments, dtype)
    assert verdict.cause == expected
    assert verdict.is_failure == (NOT_AGAIN not in experiments or expected != Cause.UNDECIDED)


def test_what_was_tried_is_said_where_nothing_follows() -> None:
    experiments = [FAILS, Experiment(cause.INTERPRETED, NOT_POSSIBLE, about="no Einsum"), *found(TORCH=AGREES)[1:]]
    verdict = decide("parity", experiments, "fp32")
    text = "\n".join(verdict.lines())
    assert verdict.because == f"none of the experiments tells; tried: {cause.AGAIN}, {cause.TORCH}"
    assert f"  {cause.INTERPRETED}: not possible; no Einsum" in text
    assert [each["outcome"] for each in verdict.to_json()["experiments"]] == [DIFFERS, NOT_POSSIBLE, AGREES]


def test_the_page_states_every_rule_in_their_order() -> None:
    page = (Path(__file__).parents[3] / "docs" / "explain.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| \d+ \| .* \| `(\w+)`", page, re.MULTILINE)
    assert stated == [str(each) for _, each, _ in RULES]


def test_the_stage_and_the_device_decide_where_the_experiments_leave_it_open() -> None:
    right = found(TORCH=AGREES)
    assert decide("forward", right, "fp32").cause == Cause.UNDECIDED
    assert decide("forward", right, "fp32", is_exported=False).cause == Cause.RUNTIME
    assert decide("forward", right, "fp32", is_converted=False).cause == Cause.EXPORTER
