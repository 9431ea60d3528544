"""Check `memory`: the peak of a run is recorded, and repeated runs do not pile up memory.

A count that never changes would find no leak. So the check occupies a known amount first, which the count has to show.
The tests of each backend show that a model which loses `LEAKED_BYTES` with every run fails: that takes dozens of runs.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed_unless
from pytest_hfaccel.checks.planted import LEAKED_BYTES
from pytest_hfaccel.core.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel

_RUNS = 8
"""Runs over which a device's own allocator is watched. Its count has no noise."""

# The resident set of a process moves by megabytes for reasons of the system allocator. A leak shows in nearly every
# round of runs, a reason of the allocator does not. A browser gives memory back when it likes: in 2 of 32 rounds that
# hid a leak of 4 MiB, and the rounds without a leak grew by 1.4 MiB at most. The first round after the known amount
# was given back hid it in 7 of 8 trials.
_ROUND_RUNS = 4
_ROUNDS = 8
_HIDING_ROUNDS = 2
"""Rounds in which a leak may stay hidden."""

_LEAK_SHARE = 0.75
"""The share of a leak of `LEAKED_BYTES` per run that counts as one: pages may be freed for other reasons meanwhile."""

_KNOWN_BYTES = 16 * 2**20
_SHOWN_SHARE = 0.5
"""The share of the known amount that the count must show; the resident set may shrink at the same moment."""
_LOOKS = 3
"""Times that the known amount is occupied until the count shows it. A browser may give back as much at the same moment
(it did in two of three self-tests); a blind count never shows it."""


@built_in("memory", stage=Stage.RUN)
def memory(context: CheckContext) -> CheckOutcome:
    """The peak memory of a run is recorded, and repeated runs leave neither outputs nor device memory behind.

    The count of memory itself must show an amount that the check occupies.
    """
    blindness, known = _count_known_amount(context.loaded)
    if blindness:
        return failed(blindness, stage=Stage.RUN, **known)
    output_bytes = sum(getattr(leaf, "nbytes", 0) for leaf in context.outputs.values())
    by_allocator = context.loaded.memory()["source"] == "allocator"
    if by_allocator:  # which is watched for one round: the second run takes what the first one did not need yet
        context.loaded.forward(context.sample.forward)
    runs = _RUNS if by_allocator else _ROUND_RUNS
    context.loaded.reset_peak_memory()
    growth, alive = _run_round(context, runs)
    usage = context.loaded.memory()
    recorded = ("peak_bytes", "current_bytes", "source", "peak_source")
    measures: dict[str, Any] = {key: usage[key] for key in recorded if key in usage}
    measures |= {**known, "output_bytes": output_bytes, "runs": runs, "growth_bytes": growth}
    if alive > 1:  # one run's outputs may stay until the next run
        return failed(f"the outputs of {alive} of {runs} finished runs are still in memory", **measures)
    problem = _allocator_problem(growth, output_bytes) if by_allocator else _process_problem(context, growth)
    return passed_unless(problem, stage=Stage.RUN, **measures)


def _count_known_amount(loaded: LoadedModel) -> tuple[str, dict[str, Any]]:
    """Occupy a known amount of memory; return what is wrong with the count of it, and what the count showed."""
    if not hasattr(loaded, "occupied"):  # a backend of others, from before there was this
        return "", {"known_bytes": "not tried: the backend cannot occupy memory"}
    for _ in range(_LOOKS):
        loaded.reset_peak_memory()
        before = loaded.memory()
        with loaded.occupied(_KNOWN_BYTES):
            during = loaded.memory()
        shown = {key: int(during[key]) - int(before["current_bytes"]) for key in ("current_bytes", "peak_bytes")}
        measures = {"known_bytes": _KNOWN_BYTES, "shown_bytes": shown["current_bytes"]}
        unseen = [key for key, grown in shown.items() if grown < _SHOWN_SHARE * _KNOWN_BYTES]
        if not unseen:
            return "", measures
    return f"{_KNOWN_BYTES} bytes more were occupied, and {' and '.join(unseen)} did not show it: {shown}", measures


def _allocator_problem(growth: int, output_bytes: int) -> str:
    # One run's outputs may stay until the next run; an allocator's own count has no other noise. A leak is not
    # hidden by large outputs: the run before the first count held as much as the last one does.
    if growth <= min(output_bytes, _LEAK_SHARE * _RUNS * LEAKED_BYTES):
        return ""
    return f"{_RUNS} runs left {growth} bytes on the device; a run's outputs have {output_bytes}"


def _process_problem(context: CheckContext, growth: int) -> str:
    least = _LEAK_SHARE * _ROUND_RUNS * LEAKED_BYTES
    rounds = [growth]
    while (hiding := sum(grown < least for grown in rounds)) <= _HIDING_ROUNDS and len(rounds) < _ROUNDS:
        rounds.append(_run_round(context, _ROUND_RUNS)[0])
    if hiding > _HIDING_ROUNDS:
        return ""
    return f"the process grew in {_ROUNDS - hiding} of {_ROUNDS} rounds of {_ROUND_RUNS} runs, by {rounds} bytes"


def _run_round(context: CheckContext, count: int) -> tuple[int, int]:
    """Run repeatedly; return by how many bytes memory grew, and how many runs' outputs are still alive."""
    before = int(context.loaded.memory()["current_bytes"])
    runs = []
    for _ in range(count):
        outputs = context.loaded.forward(context.sample.forward)
        runs.append([weakref.ref(leaf) for leaf in outputs.values() if hasattr(leaf, "__weakref__")])
        del outputs
    if _alive(runs) > 1:
        gc.collect()  # a reference cycle is not a leak: the collector frees it
    return int(context.loaded.memory()["current_bytes"]) - before, _alive(runs)


def _alive(runs: list[list[weakref.ref[torch.Tensor]]]) -> int:
    """Return how many runs left something of their own behind; a constant that each run returns is one thing."""
    seen: set[int] = set()
    alive = 0
    for run in runs:
        left = {id(leaf) for watched in run if (leaf := watched()) is not None}
        alive += bool(left - seen)
        seen |= left
    return alive
