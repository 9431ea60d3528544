"""What a model needs on a device: memory, disk, cores and the batch that fits, each number with its source."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.predict.requirements.memory import USABLE_SHARE, Overhead, overhead_of
from pytest_hfaccel.predict.text import MIB
from pytest_hfaccel.tracing.trace import PRECISIONS, ModelTrace, precision_of
from pytest_hfaccel.tracing.traces import trace_of

_FP32 = PRECISIONS["fp32"].activation


@dataclass(frozen=True)
class RunCost:
    """What a forward pass takes besides the weights, in fp32.

    Attributes:
        fixed_bytes: Bytes of activations alive at the peak that do not depend on the batch.
        bytes_per_sample: Bytes of activations alive at the peak, per sample.
        output_bytes_per_sample: Bytes of the outputs per sample, caches included.
        flops_per_sample: Floating-point operations per sample (a multiplication and an addition count as two).
        multiplied_bytes: Bytes of the weights that go into matrix products and convolutions. Runtimes that bring
            those into a layout of their own hold them twice; tables of embeddings they do not.
    """

    fixed_bytes: int
    bytes_per_sample: int
    output_bytes_per_sample: int
    flops_per_sample: int
    multiplied_bytes: int

    @classmethod
    def from_traces(cls, one: ModelTrace, two: ModelTrace) -> RunCost:
        """Compute the cost from traces in fp32 at batches 1 and 2: activations grow linearly with the batch."""
        per_sample = max(0, two.activation_bytes - one.activation_bytes)
        return cls(
            fixed_bytes=max(0, one.activation_bytes - per_sample),
            bytes_per_sample=per_sample,
            output_bytes_per_sample=one.output_bytes,
            flops_per_sample=one.flops,
            multiplied_bytes=one.multiplied_bytes,
        )


@dataclass(frozen=True)
class ArchitectureCost:
    """What a model of given dimensions holds, and what running it takes.

    Attributes:
        parameters: Number of parameters, shared ones counted once.
        buffer_bytes: Bytes of the buffers in memory.
        stored_buffer_bytes: Bytes of those buffers that a checkpoint holds.
        length: Tokens per sample in the forward pass that was traced.
        run: What a forward pass takes; `None` when it could not be traced.
        problem: Why `run` is `None`, else empty.
    """

    parameters: int
    buffer_bytes: int
    stored_buffer_bytes: int
    length: int
    run: RunCost | None
    problem: str = ""

    @classmethod
    def from_traces(cls, one: ModelTrace, two: ModelTrace) -> ArchitectureCost:
        """Compute the cost from traces in fp32 at batches 1 and 2."""
        run = RunCost.from_traces(one, two)
        return cls(one.parameters, one.buffer_bytes, one.stored_buffer_bytes, one.length, run)

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of parameters at a dtype and of buffers as they are."""
        return self._parameter_bytes(dtype) + self.buffer_bytes

    def disk_bytes(self, dtype: str) -> int:
        """Bytes of a checkpoint's weights at a dtype; its header and the tokenizer's files are small beside them."""
        return self._parameter_bytes(dtype) + self.stored_buffer_bytes

    def multiplied_bytes(self, dtype: str) -> int:
        """Bytes of the weights that go into matrix products; all of them where that is not known."""
        if self.run is None:
            return self.weight_bytes(dtype)
        return self.run.multiplied_bytes * precision_of(dtype).weight // _FP32

    def _parameter_bytes(self, dtype: str) -> int:
        """Bytes of the parameters: int8 rounds those of matrix products only, and leaves fp32 to the others."""
        multiplied = min(self.run.multiplied_bytes // _FP32 if self.run else 0, self.parameters)
        precision = precision_of(dtype)
        return multiplied * precision.weight + (self.parameters - multiplied) * precision.activation

    def activation_bytes(self, dtype: str, batch: int) -> int:
        """Bytes of activations at the peak of a forward pass; 0 where that is not known."""
        if self.run is None:
            return 0
        # Integers and what models compute in fp32 at any dtype are a small part: all of it scales with the dtype.
        fp32 = self.run.fixed_bytes + batch * self.run.bytes_per_sample
        return fp32 * precision_of(dtype).activation // _FP32

    def output_bytes(self, dtype: str, batch: int) -> int:
        """Bytes of the outputs of a forward pass, which are part of the activations; 0 where that is not known."""
        if self.run is None:
            return 0
        return batch * self.run.output_bytes_per_sample * precision_of(dtype).activation // _FP32

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArchitectureCost:
        """Rebuild a cost from what `to_json` returned."""
        run = data["run"]
        return cls(**{**data, "run": RunCost(**run) if run else None})


DEFAULT_LENGTH = 128
"""Tokens per sample of texts when the caller does not say: the length of a short paragraph."""

_VERSION = 4
"""Raised when a change of the computation makes remembered costs wrong."""


def cost_of(architecture: str, dims: Mapping[str, Any], *, length: int, cache_dir: Path) -> ArchitectureCost:
    """Return what a model of these dimensions costs; takes seconds the first time, then a file read.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs.
        cache_dir: Where costs are remembered, by architecture, dimensions, length and library versions.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    file = cache_dir / "costs" / f"{_key(architecture, dims, length)}.json"
    remembered = _read(file)
    if remembered is not None:
        return remembered
    cost = trace_architecture(architecture, dims, length, cache_dir=cache_dir)
    with suppress(OSError):  # a cache that cannot be written (read-only home) costs time, not correctness
        replace_file(file, json.dumps(cost.to_json()))
    return cost


def trace_architecture(
    architecture: str, dims: Mapping[str, Any], length: int, *, cache_dir: Path | None = None
) -> ArchitectureCost:
    """Compute what a model of these dimensions costs from its traces in fp32; arguments and errors as for `cost_of`.

    A model without a pass on fake tensors still has parameters: its cost says why the rest is not known.
    """
    try:
        one, two = (trace_of(architecture, dims, batch=batch, length=length, cache_dir=cache_dir) for batch in (1, 2))
    except LoadError as error:
        return _cost_at_rest(architecture, dims, length, error.message)
    return ArchitectureCost.from_traces(one, two)


def _cost_at_rest(architecture: str, dims: Mapping[str, Any], length: int, problem: str) -> ArchitectureCost:
    from pytest_hfaccel.tracing.input_shapes import text_length
    from pytest_hfaccel.tracing.recording import weights_of
    from pytest_hfaccel.tracing.torch.fake_model import meta_model

    model = meta_model(architecture, dims)  # where this was the problem, it raises
    held = weights_of(model)
    return ArchitectureCost(
        parameters=held.parameters,
        buffer_bytes=held.buffer_bytes,
        stored_buffer_bytes=held.stored_buffer_bytes,
        length=text_length(model.config, length),
        run=None,
        problem=problem,
    )


def _key(architecture: str, dims: Mapping[str, Any], length: int) -> str:
    from importlib.metadata import version

    versions = [version("torch"), version("transformers"), _VERSION]
    text = json.dumps([architecture, dims, length, versions], sort_keys=True, default=str)
    return f"{architecture}-{sha256(text.encode()).hexdigest()[:24]}"


def _read(file: Path) -> ArchitectureCost | None:
    try:
        return ArchitectureCost.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or not what this version writes: it is traced again and replaced


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
        origin: Where the dimensions come from, without a full stop.
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
    batch = f"the largest power of two up to {MOST_SAMPLES} that fits {share} ({(memory_bytes or 0) // MIB} MB)"
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
    return math.ceil(size / MIB)
