"""Check `memory`: the peak of a run is recorded, and repeated runs do not pile up memory."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed
from pytest_hfaccel.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

NAME = "memory"
_RUNS = 8
"""Runs over which a device's own allocator is watched. Its count has no noise."""

# The resident set of a process moves by megabytes for reasons of the system allocator. A leak shows in every round
# of runs, a reason of the allocator does not; and a run leaves at least this much, or too little to be told from noise.
_ROUND_RUNS = 4
_ROUNDS = 8
_RUN_BYTES = 2**20


def memory(context: CheckContext) -> CheckOutcome:
    """The peak memory of a run is recorded, and repeated runs leave neither outputs nor device memory behind."""
    output_bytes = sum(leaf.numel() * leaf.element_size() for leaf in context.outputs.values())
    by_allocator = context.loaded.memory()["source"] == "allocator"
    if by_allocator:  # which is watched for one round: the second run takes what the first one did not need yet
        context.loaded.forward(context.sample.forward)
    runs = _RUNS if by_allocator else _ROUND_RUNS
    context.loaded.reset_peak_memory()
    growth, kept = _round(context, runs)
    measures = {**_usage(context), "output_bytes": output_bytes, "runs": runs, "growth_bytes": growth}
    if kept > 1:  # one run's outputs may be held until the next run
        return failed(NAME, f"the outputs of {kept} of {runs} finished runs are still in memory", **measures)
    if by_allocator:
        problem = _allocator_problem(growth, output_bytes)
    else:
        problem = _process_problem(context, growth, output_bytes)
    return failed(NAME, problem, stage=Stage.RUN, **measures) if problem else passed(NAME, **measures)


def _usage(context: CheckContext) -> dict[str, Any]:
    found = context.loaded.memory()
    return {key: found[key] for key in ("peak_bytes", "current_bytes", "source", "peak_source") if key in found}


def _allocator_problem(growth: int, output_bytes: int) -> str:
    # One run's outputs may be held until the next run; an allocator's own count has no other noise.
    if growth <= output_bytes:
        return ""
    return f"{_RUNS} runs left {growth} bytes on the device; a run's outputs have {output_bytes}"


def _process_problem(context: CheckContext, growth: int, output_bytes: int) -> str:
    least = _ROUND_RUNS * max(_RUN_BYTES, output_bytes // 2)
    rounds = [growth]
    while rounds[-1] >= least and len(rounds) < _ROUNDS:
        rounds.append(_round(context, _ROUND_RUNS)[0])
    if rounds[-1] < least:
        return ""
    return f"the process grew in each of {_ROUNDS} rounds of {_ROUND_RUNS} runs, by {rounds} bytes"


def _round(context: CheckContext, count: int) -> tuple[int, int]:
    """Run repeatedly; return by how many bytes memory grew, and how many runs' outputs are still alive."""
    before = int(context.loaded.memory()["current_bytes"])
    runs = [_watched(context.loaded.forward(context.sample.forward)) for _ in range(count)]
    if _alive(runs) > 1:
        gc.collect()  # a reference cycle is not a leak: the collector frees it
    return int(context.loaded.memory()["current_bytes"]) - before, _alive(runs)


def _watched(outputs: dict[str, torch.Tensor]) -> list[weakref.ref[torch.Tensor]]:
    return [weakref.ref(leaf) for leaf in outputs.values()]


def _alive(runs: list[list[weakref.ref[torch.Tensor]]]) -> int:
    """Return how many runs left something of their own behind; a constant that each run returns is one thing."""
    seen: set[int] = set()
    alive = 0
    for run in runs:
        left = {id(leaf) for watched in run if (leaf := watched()) is not None}
        alive += bool(left - seen)
        seen |= left
    return alive
