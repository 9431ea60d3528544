"""Memory: what a runtime adds to weights and activations, what a model takes together, and whether it fits a device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import ceil
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question
from pytest_hfaccel.predict.text import MIB, memory_text
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.predict.platforms import Platform
    from pytest_hfaccel.predict.requirements import ArchitectureCost

USABLE_SHARE = 0.7
"""Share of a device's memory a model may fill; the pool's own default, so that what is advised can be loaded."""

USABLE_SHARE_SPLIT = 0.9
"""Share of each device's memory that is counted on when a model is split over several: the runtime's own, communication
buffers and unequal parts take the rest."""

_INTERVAL = (0.85, 1.20)
"""`docs/requirements_accuracy.md`: predicted from constants fitted on other models, four fifths of the registered
models stay within these factors."""

_UNMEASURED_FACTOR = 2.0
"""Where no overhead was measured the computed bytes are a lower bound; allocators of accelerators round up and keep
what was freed, and twice as much has room for both."""

_SMALLER = {"fp32": ("bf16", "fp16", "int8"), "bf16": ("int8",), "fp16": ("int8",)}


@dataclass(frozen=True)
class Overhead:
    """How weights and activations become the memory of a process, on one kind of device.

    `peak = weights + base + per_multiplied_byte * multiplied + per_activation_byte * activations
    + per_output_byte * outputs`; the constants are measured by `benchmarks/requirements_accuracy.py`.

    Attributes:
        import_bytes: Memory of a process that has imported the runtime and done nothing; 0 for memory of a device.
        base_bytes: What the runtime takes for itself on the first run.
        per_multiplied_byte: Bytes per byte of the weights that go into matrix products, besides those above: OpenVINO
            keeps them a second time, in its own layout.
        per_activation_byte: Bytes per byte of activations: what the allocator cannot use again at once.
        per_output_byte: Bytes per byte of the outputs, besides those above: OpenVINO holds and returns copies of them.
        flops_per_second_and_core: Speed of one core on whole models; 0 where it was not measured.
        source: Where the numbers come from, for people.
    """

    import_bytes: int
    base_bytes: int
    per_multiplied_byte: float
    per_activation_byte: float
    per_output_byte: float
    flops_per_second_and_core: int
    source: str

    @property
    def is_measured(self) -> bool:
        """Whether these numbers were measured on a device of this kind."""
        return self.import_bytes > 0

    def peak_bytes(self, cost: ArchitectureCost, dtype: str, batch: int) -> int:
        """Bytes a process (or an accelerator's memory) holds at the peak, imports included."""
        weights, activations = cost.weight_bytes(dtype), cost.activation_bytes(dtype, batch)
        added = self._added(cost.multiplied_bytes(dtype), activations, cost.output_bytes(dtype, batch))
        return int(self.import_bytes + weights + added)

    def added_by(self, trace: ModelTrace) -> float:
        """Bytes a model adds to a process that has imported the runtime, at the peak."""
        return trace.weight_bytes + self._added(trace.multiplied_bytes, trace.activation_bytes, trace.output_bytes)

    def _added(self, multiplied: float, activations: float, outputs: float) -> float:
        running = self.per_activation_byte * activations + self.per_output_byte * outputs
        return self.base_bytes + self.per_multiplied_byte * multiplied + running


@cache
def overhead_of(kind: str) -> Overhead:
    """Return the overhead of a kind of device.

    Where none was measured it is weights and activations as computed: a lower bound, and `source` says so.
    """
    row: dict[str, Any] = json.loads(files(__package__).joinpath("overhead.json").read_text(encoding="utf-8")).get(kind)
    if row is None:
        source = f"no overhead was measured on {kind}: weights and activations only, without the runtime's own memory"
        return Overhead(0, 0, 0.0, 1.0, 0.0, 0, source)
    how = row.pop("measured")
    versions = ", ".join(f"{name} {number}" for name, number in how["versions"].items())
    source = f"measured at fp32 on {how['when']} with {how['models']} models on {how['machine']} ({versions})"
    return Overhead(**row, source=source)


def memory_of(trace: ModelTrace, device_kind: str) -> Estimate:
    """Return what a model adds to the memory of a device at the peak of a forward pass (a training step), in MiB."""
    overhead = overhead_of(device_kind)
    mib = overhead.added_by(trace) / MIB
    low, high = _INTERVAL if overhead.is_measured else (1.0, _UNMEASURED_FACTOR)
    return Estimate(mib, low * mib, high * mib)


MemoryAt = Callable[[int, str], float | None]
"""Predicts the memory in MiB at a batch and dtype."""


def with_fit(found: Prediction, platform: Platform, memory_at: MemoryAt) -> Prediction:
    """Return a prediction with `fits`, and with advice when it does not fit.

    It fits when the predicted peak is at most the device's memory; of a device of this machine at most the share of it
    that the pool fills, so that what is advised can be loaded. Where either is not known, `fits` stays `None`.

    Args:
        found: The prediction.
        platform: The device.
        memory_at: What it would take at another batch or dtype.
    """
    need, have = found.memory_mb, platform.memory_bytes
    if need is None or have is None:
        return found
    have_mb = have / MIB * (USABLE_SHARE if platform.is_present else 1)
    memory = {"device_memory_mb": round(have / MIB, 1), "device_memory_source": platform.memory_source}
    fits, advice = need.value <= have_mb, ""
    if not fits:
        advice = _advice(found.question, need, have_mb, memory_at)
    elif need.high > have_mb:
        advice = f"It may just not fit: up to {memory_text(need.high)} are possible, of {memory_text(have_mb)}."
    return replace(found, fits=fits, advice=advice, details={**found.details, **memory})


def _advice(question: Question, need: Estimate, have_mb: float, memory_at: MemoryAt) -> str:
    point = f"{question.dtype} and batch {question.batch}"
    missing = f"Does not fit: needs {memory_text(need.value)} at {point}, of {memory_text(have_mb)}."
    options = [*_smaller_dtype(question, have_mb, memory_at), *_smaller_batch(question, have_mb, memory_at)]
    if question.device_kind in GPU_KINDS:
        devices = ceil(need.value / (USABLE_SHARE_SPLIT * have_mb))
        options.append(
            f"{devices} such devices among which the model is split ({memory_text(need.value / devices)} each)"
        )
    return f"{missing} Would fit: {'; '.join(options)}." if options else missing


def _smaller_dtype(question: Question, have_mb: float, memory_at: MemoryAt) -> Iterator[str]:
    for dtype in _SMALLER.get(question.dtype, ()):
        memory = None if question.training and dtype == "int8" else memory_at(question.batch, dtype)
        if memory is not None and memory <= have_mb:
            yield f"{dtype} ({memory_text(memory)}{', quantized weights' if dtype == 'int8' else ''})"
            return


def _smaller_batch(question: Question, have_mb: float, memory_at: MemoryAt) -> Iterator[str]:
    batch = question.batch
    while batch > 1:
        batch //= 2
        memory = memory_at(batch, question.dtype)
        if memory is not None and memory <= have_mb:
            yield f"batch {batch} ({memory_text(memory)})"
            return
