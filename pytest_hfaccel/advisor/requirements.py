"""What a model needs on a device: memory, disk, cores and the batch that fits, each number with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pytest_hfaccel.advisor.cost import ArchitectureCost
from pytest_hfaccel.advisor.overhead import Overhead, overhead_of

MB = 2**20
"""Bytes of a megabyte in every result: the binary one, as the pool's thresholds count."""

USABLE_SHARE = 0.7
"""Share of a device's memory a model may fill; the pool's own default, so that what is advised can be loaded."""

MOST_SAMPLES = 32
"""Largest batch that is advised. A convention: whether more pays is a question of throughput, which is measured."""

_SECONDS_PER_SAMPLE = 1.0
"""So many cores are advised that a sample takes at most this long."""


@dataclass(frozen=True)
class Requirements:
    """What a model needs on one kind of device, at one dtype.

    Attributes:
        device: Kind of device.
        dtype: The dtype the numbers are for.
        length: Tokens per sample of texts.
        parameters: Number of parameters.
        weights_mb: Weights and buffers.
        activations_mb: Activations at the peak, for one sample.
        min_memory_mb: Peak with one sample.
        recommended_memory_mb: Peak with `batch_size` samples.
        disk_space_mb: The checkpoint's weights.
        cpu_cores: Cores worth having.
        batch_size: Largest power of two whose peak fits, 1 where not even one sample or nothing is known.
        fits: Whether one sample fits; `None` where the device's memory is not known.
        sources: Where each number comes from, by field.
    """

    device: str
    dtype: str
    length: int
    parameters: int
    weights_mb: int
    activations_mb: int
    min_memory_mb: int
    recommended_memory_mb: int
    disk_space_mb: int
    cpu_cores: int
    batch_size: int
    fits: bool | None
    sources: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form, the five numbers of the guide first; names carry the units."""
        first = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")
        return {name: getattr(self, name) for name in (*first, *(set_ for set_ in vars(self) if set_ not in first))}


def requirements_on(
    kind: str, cost: ArchitectureCost, *, dtype: str, memory_bytes: int | None, cores: int, origin: str
) -> Requirements:
    """Compute what a model needs on a kind of device.

    Args:
        kind: Kind of device, as in `pytest_hfaccel.core.spec.DEVICE_KINDS`.
        cost: What the architecture costs.
        dtype: dtype of weights and activations.
        memory_bytes: Memory of the device; `None` where that is not known.
        cores: Cores this process may use.
        origin: Where the dimensions come from, half a sentence.
    """
    overhead = overhead_of(kind)
    batch, fits = _batch(cost, overhead, dtype, memory_bytes)
    return Requirements(
        device=kind,
        dtype=dtype,
        length=cost.length,
        parameters=cost.parameters,
        weights_mb=_mb(cost.weight_bytes(dtype)),
        activations_mb=_mb(cost.activation_bytes(dtype, 1)),
        min_memory_mb=_mb(overhead.peak_bytes(cost, dtype, 1)),
        recommended_memory_mb=_mb(overhead.peak_bytes(cost, dtype, batch)),
        disk_space_mb=_mb(cost.disk_bytes(dtype)),
        cpu_cores=_cores(cost, overhead, cores),
        batch_size=batch,
        fits=fits,
        sources=_sources(cost, overhead, dtype, memory_bytes, origin),
    )


def _batch(cost: ArchitectureCost, overhead: Overhead, dtype: str, memory_bytes: int | None) -> tuple[int, bool | None]:
    if memory_bytes is None:
        return 1, None
    usable = USABLE_SHARE * memory_bytes
    if overhead.peak_bytes(cost, dtype, 1) > usable:
        return 1, False
    if cost.run is None:
        return 1, True
    batch = 1
    while batch < MOST_SAMPLES and overhead.peak_bytes(cost, dtype, 2 * batch) <= usable:
        batch *= 2
    return batch, True


def _cores(cost: ArchitectureCost, overhead: Overhead, cores: int) -> int:
    speed = overhead.flops_per_second_and_core
    if not speed or cost.run is None:
        return 1
    return max(1, min(cores, math.ceil(cost.run.flops_per_sample / speed / _SECONDS_PER_SAMPLE)))


def _sources(
    cost: ArchitectureCost, overhead: Overhead, dtype: str, memory_bytes: int | None, origin: str
) -> dict[str, str]:
    built = f"the class built on the meta device with the dimensions of {origin}"
    weights = f"{cost.parameters:,} parameters at {dtype} and their buffers: {built}"
    traced = f"a forward pass on fake tensors at {dtype}, {cost.length} tokens of text per sample"
    activations = traced if cost.run else f"not known: {cost.problem}"
    memory = f"weights, activations ({activations}), and what the runtime adds: {overhead.source}"
    share = f"{USABLE_SHARE:.0%} of the device's memory"
    known = memory_bytes is not None
    batch = f"the largest power of two up to {MOST_SAMPLES} that fits {share} ({(memory_bytes or 0) // MB} MB)"
    speed = f"one sample in at most {_SECONDS_PER_SAMPLE:g} s at the measured speed of a core, at most those present"
    return {
        "weights_mb": weights,
        "disk_space_mb": weights,
        "activations_mb": activations,
        "min_memory_mb": memory,
        "recommended_memory_mb": memory,
        "batch_size": batch if known else "1, because the memory of the device is not known",
        "cpu_cores": speed if overhead.flops_per_second_and_core and cost.run else "one core feeds the device",
    }


def _mb(size: int) -> int:
    """Whole megabytes, rounded up: 0 would read as nothing."""
    return math.ceil(size / MB)
