"""One loaded model measured at one point: the core that the check, `hfaccel bench` and the experiments share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.measurement import Measurement, Point
from pytest_hfaccel.benchmark.memory import AddedMemory, SharedProcess
from pytest_hfaccel.benchmark.noise import noise_between, read_noise
from pytest_hfaccel.benchmark.timing import (
    BLOCK_MINIMA,
    CPU_SHARE,
    TimingBudget,
    block_minima,
    latency_of,
    time_runs,
    timed_runs,
    warm_up_runs,
)
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.spec import CPU

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.benchmark.inputs import MeasuredInputs
    from pytest_hfaccel.core.spec import Cell


Timer = Callable[[Callable[[], Any], TimingBudget], list[float]]
NEW_TOKENS = 16
"""Tokens after the first: enough that their time stands out against the noise of the first one's."""
_SHARE_FOR_TOKENS = 0.5
"""Generation is timed twice, each time with this share of the seconds that the forward pass may take."""


@dataclass(frozen=True)
class PerformanceRequest:
    """What the check `performance` is to do.

    Attributes:
        budget: How much work the timing of a point may be.
        timed: Whether anything is timed; else the model runs once at each point.
        only_right: Whether parity must have passed: the speed of wrong results is not measured.
        facts: Plain JSON worth keeping among a measurement's details.
    """

    points: tuple[Point, ...] = (Point(1),)
    budget: TimingBudget = field(default_factory=TimingBudget)
    timer: Timer = timed_runs
    timed: bool = True
    only_right: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


def measure(
    loaded: LoadedModel,
    cell: Cell,
    inputs: MeasuredInputs,
    *,
    budget: TimingBudget = TimingBudget(),  # noqa: B008 - frozen
    memory: AddedMemory | None = None,
    generation: bool = True,
    parameters: int | None = None,
    timer: Timer = timed_runs,
    facts: Mapping[str, Any] | None = None,
) -> Measurement:
    """Measure latency, memory, generation and noise of a loaded model on these inputs.

    The budget is that of the forward pass. `memory` says how added memory is found; by default as in a process that
    holds other models. `timer` returns the seconds of repeated runs: `timed_runs`, or what lets pytest-benchmark do it.
    Generation is timed where the model generates; `facts` are kept among the details.

    Raises:
        OutOfMemory: The device's memory did not suffice.
    """
    import torch

    inside = _SecondsInside(loaded)

    def run() -> None:
        loaded.forward(inputs.forward)
        inside.note()

    memory = memory or SharedProcess()
    before = read_noise(cell.device.id)
    memory.begin(loaded)
    warm_up = warm_up_runs(run, budget)
    # The peak is that of the warm-up: the first run has more work (packing weights, compiling kernels), and the timed
    # ones keep the garbage collector off.
    memory_bytes, memory_source = memory.added(loaded)
    cpu, wall = time.process_time(), time.perf_counter()
    seconds, transport = inside.of(timer(run, budget))
    busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    tokens = _tokens(loaded, inputs, budget) if generation else {}
    noise = noise_between(before, read_noise(cell.device.id))
    placement, timings = loaded.placement, loaded.timings
    return Measurement(
        model=cell.model.name,
        architecture=cell.model.architecture,
        task=cell.model.task,
        weights=str(cell.weights.kind),
        device=cell.device.id,
        device_name=_device_name(cell, placement.details),
        dtype=cell.dtype,
        effective_dtype=placement.effective_dtype,
        implementation=placement.implementation,
        threads=torch.get_num_threads(),
        weight_bytes=loaded.nbytes,
        load_s=timings.get("load", 0.0),
        convert_s=timings.get("convert", 0.0),
        compile_s=timings.get("compile", 0.0),
        batch=inputs.batch,
        length=inputs.length,
        latency=latency_of(seconds, warm_up),
        noise=noise,
        first_token_ms=tokens.pop("first_token_ms", None),
        per_token_ms=tokens.pop("per_token_ms", None),
        memory_bytes=memory_bytes,
        memory_source=memory_source,
        parameters=parameters,
        details={
            "inputs": inputs.shapes,
            "inputs_source": inputs.source,
            CPU_SHARE: round(busy, 4),
            BLOCK_MINIMA: block_minima(seconds),
            **transport,
            **tokens,
            "placement": placement.to_json(),
            **(facts or {}),
        },
    )


class _SecondsInside:
    """The times of runs as a runtime in another process measured them there, without the way there and back.

    Args:
        loaded: The model; only where it has `run_seconds` there is something to note.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._read: Callable[[], float | None] = getattr(loaded, "run_seconds", lambda: None)
        self._noted: list[float] = []

    def note(self) -> None:
        seconds = self._read()
        if seconds is not None:
            self._noted.append(seconds)

    def of(self, seconds: list[float]) -> tuple[list[float], dict[str, float]]:
        """Return the times of these runs, the last ones, and what the way took."""
        noted = self._noted[-len(seconds) :]
        if len(noted) < len(seconds):
            return seconds, {}
        return noted, {"transport_ms": round(1e3 * (statistics.median(seconds) - statistics.median(noted)), 3)}


def _device_name(cell: Cell, details: dict[str, Any]) -> str:
    """The chip's name as its runtime gives it; torch calls every CPU `CPU`, the system knows better."""
    from pytest_hfaccel.hardware.cpu import read_cpuinfo

    named = "" if cell.device.eager == CPU else str(details.get("name", ""))
    return named or read_cpuinfo()[0] or str(details.get("name", ""))


def _tokens(loaded: LoadedModel, inputs: MeasuredInputs, budget: TimingBudget) -> dict[str, Any]:
    """Time generation where the model generates, or say why that was not possible.

    `first_token_ms` is the pass over the prompt and what `generate` does around it, `per_token_ms` the mean of the
    tokens after it; `None` where noise hides it. `use_cache` says whether the backend keeps keys and values.
    """
    prompt = inputs.generate
    if prompt is None:
        return {}
    budget = replace(budget, least_seconds=0.0, floor_seconds=0.0, max_seconds=_SHARE_FOR_TOKENS * budget.max_seconds)

    def median_ms(tokens: int, use_cache: bool) -> float:
        run = partial(loaded.generate, prompt, max_new_tokens=tokens, use_cache=use_cache)
        return time_runs(run, budget).median_ms

    for use_cache in (True, False):
        try:
            first, all_tokens = median_ms(1, use_cache), median_ms(1 + NEW_TOKENS, use_cache)
        except NotImplementedError:
            continue
        except (HfAccelError, RuntimeError, ValueError, IndexError) as error:
            # A prompt as long as the model's positions leaves no room for new tokens; the forward pass stands.
            return {"not_generated": f"{type(error).__name__}: {error}"[:200]}
        further = (all_tokens - first) / NEW_TOKENS
        return {
            "first_token_ms": first,
            "per_token_ms": further if further > 0 else None,
            "use_cache": use_cache,
            "new_tokens": 1 + NEW_TOKENS,
        }
    return {"not_generated": "this backend does not generate with this model"}
