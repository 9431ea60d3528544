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
_WARM_UP = 3
_RUNS = 8

# The resident set of a process moves by megabytes for reasons of the system allocator. A leak shows in every round
# of runs, a reason of the allocator does not; and it is at least this large, or too small to be told from noise.
_ROUNDS = 4
_ROUND_BYTES = 8 * 2**20


def memory(context: CheckContext) -> CheckOutcome:
    """The peak memory of a run is recorded, and repeated runs leave neither outputs nor device memory behind."""
    loaded = context.loaded
    for _ in range(_WARM_UP):
        outputs = loaded.forward(context.sample.forward)
    output_bytes = sum(leaf.numel() * leaf.element_size() for leaf in outputs.values())
    del outputs
    measures = {**_peak(context), "output_bytes": output_bytes, "runs": _RUNS}
    kept = _kept_outputs(context)
    if kept:
        return failed(NAME, f"the outputs of {kept} of {_RUNS} finished runs are still in memory", **measures)
    growth, problem = _growth(context, output_bytes)
    measures["growth_bytes"] = growth
    return failed(NAME, problem, stage=Stage.RUN, **measures) if problem else passed(NAME, **measures)


def _peak(context: CheckContext) -> dict[str, Any]:
    context.loaded.reset_peak_memory()
    context.loaded.forward(context.sample.forward)
    found = context.loaded.memory()
    return {key: found[key] for key in ("peak_bytes", "current_bytes", "source") if key in found}


def _kept_outputs(context: CheckContext) -> int:
    """Return how many finished runs' outputs are still alive, beyond those of the last run."""
    alive = [_watched(context.loaded.forward(context.sample.forward)) for _ in range(_RUNS)]
    if _count(alive) > 1:
        gc.collect()  # a reference cycle is not a leak: the collector frees it
    return max(0, _count(alive) - 1)  # one run's outputs may be held until the next run


def _watched(outputs: dict[str, torch.Tensor]) -> list[weakref.ref[torch.Tensor]]:
    return [weakref.ref(leaf) for leaf in outputs.values()]


def _count(runs: list[list[weakref.ref[torch.Tensor]]]) -> int:
    return sum(any(watched() is not None for watched in run) for run in runs)


def _growth(context: CheckContext, output_bytes: int) -> tuple[int, str]:
    """Return by how many bytes the device's memory grew, and what is wrong with that."""
    before = context.loaded.memory()
    if before.get("source") == "allocator":
        growth = _round(context)
        # One run's outputs may be held until the next run; an allocator's own count has no other noise.
        if growth > output_bytes:
            return growth, f"{_RUNS} runs left {growth} bytes on the device; a run's outputs have {output_bytes}"
        return growth, ""
    least = max(_ROUND_BYTES, _RUNS * output_bytes // 2)
    rounds = []
    for _ in range(_ROUNDS):
        rounds.append(_round(context))
        if rounds[-1] < least:
            return sum(rounds), ""
    return sum(rounds), f"the process grew in each of {_ROUNDS} rounds of {_RUNS} runs, by {rounds} bytes"


def _round(context: CheckContext) -> int:
    before = int(context.loaded.memory()["current_bytes"])
    for _ in range(_RUNS):
        context.loaded.forward(context.sample.forward)
    return int(context.loaded.memory()["current_bytes"]) - before
