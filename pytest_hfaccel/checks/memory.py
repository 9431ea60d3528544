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
_WARM_UP = 2
_RUNS = 8

# The resident set of a process moves by megabytes for reasons of the system allocator. A leak shows in every round
# of runs, a reason of the allocator does not; and it is at least this large, or too small to be told from noise.
_ROUNDS = 4
_ROUND_BYTES = 8 * 2**20


def memory(context: CheckContext) -> CheckOutcome:
    """The peak memory of a run is recorded, and repeated runs leave neither outputs nor device memory behind."""
    for _ in range(_WARM_UP):
        outputs = context.loaded.forward(context.sample.forward)
    output_bytes = sum(leaf.numel() * leaf.element_size() for leaf in outputs.values())
    del outputs
    context.loaded.reset_peak_memory()
    growth, kept = _round(context)
    measures = {**_usage(context), "output_bytes": output_bytes, "runs": _RUNS, "growth_bytes": growth}
    if kept > 1:  # one run's outputs may be held until the next run
        return failed(NAME, f"the outputs of {kept} of {_RUNS} finished runs are still in memory", **measures)
    if measures.get("source") == "allocator":
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
    least = max(_ROUND_BYTES, _RUNS * output_bytes // 2)
    rounds = [growth]
    while rounds[-1] >= least and len(rounds) < _ROUNDS:
        rounds.append(_round(context)[0])
    if rounds[-1] < least:
        return ""
    return f"the process grew in each of {_ROUNDS} rounds of {_RUNS} runs, by {rounds} bytes"


def _round(context: CheckContext) -> tuple[int, int]:
    """Run repeatedly; return by how many bytes memory grew, and how many runs' outputs are still alive."""
    before = int(context.loaded.memory()["current_bytes"])
    runs = [_watched(context.loaded.forward(context.sample.forward)) for _ in range(_RUNS)]
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
