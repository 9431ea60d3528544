"""The check `memory` finds what is left behind, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hfaccel.results import Status
from tests.unit.checks.support import Misbehaving, TinyContext, TinySource, run, with_forward

pytestmark = pytest.mark.slow


def test_memory_fails_when_outputs_are_kept(bert: TinySource) -> None:
    kept = []

    def keeping(right: Any, inputs: Any) -> Any:
        kept.append(right(inputs))
        return kept[-1]

    outcome = run("memory", with_forward(TinyContext(bert), keeping))
    assert outcome.status == Status.FAILED
    assert outcome.reason == "the outputs of 4 of 4 finished runs are still in memory"


def test_memory_allows_the_outputs_of_the_last_run_and_reference_cycles(bert: TinySource) -> None:
    last = []

    def holding(right: Any, inputs: Any) -> Any:
        last[:] = [right(inputs)]
        cycle: dict[str, Any] = dict(last[0])
        cycle["self"] = cycle
        return last[0]

    assert run("memory", with_forward(TinyContext(bert), holding)).status == Status.PASSED


def test_memory_allows_a_constant_that_every_run_returns(bert: TinySource) -> None:
    constant: dict[str, Any] = {}

    def with_constant(right: Any, inputs: Any) -> Any:
        outputs = right(inputs)
        constant.setdefault("positions", next(iter(outputs.values())).clone())
        return {**outputs, **constant}

    assert run("memory", with_forward(TinyContext(bert), with_constant)).status == Status.PASSED


@pytest.mark.parametrize(("leak", "status"), [(0, Status.PASSED), (100_000, Status.FAILED)])
def test_memory_fails_when_an_allocator_counts_more_after_each_run(bert: TinySource, leak: int, status: Status) -> None:
    context = TinyContext(bert)
    held = [0]

    def leaking(right: Any, inputs: Any) -> Any:
        held[0] += leak
        return right(inputs)

    with_forward(context, leaking)
    count = {"peak_bytes": 0, "source": "allocator"}
    context.loaded._overrides["memory"] = lambda: {**count, "current_bytes": held[0]}
    assert run("memory", context).status == status


@pytest.mark.parametrize(
    ("growth", "status"),
    [
        ([50_000_000, 0], Status.PASSED),  # the system allocator takes a block once
        ([5_000_000] * 8, Status.FAILED),
    ],
)
def test_memory_fails_when_the_process_grows_in_every_round(
    bert: TinySource, growth: list[int], status: Status
) -> None:
    context = TinyContext(bert)
    first, *rest = growth
    # Read once for its source, before and after the first round, for the record, before and after each further round.
    steps = iter([0, 0, first, 0, *(step for one in rest for step in (0, one))])
    total = [0]

    def memory() -> dict[str, Any]:
        total[0] += next(steps)
        return {"current_bytes": total[0], "peak_bytes": total[0], "source": "process"}

    context.loaded = Misbehaving(context.loaded, memory=memory)
    assert run("memory", context).status == status
