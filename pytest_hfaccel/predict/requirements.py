"""What a model needs on a device: memory, disk, cores and the batch that fits, each number with its source."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.prediction import Estimate, Prediction
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.text import MIB, memory_text
from pytest_hfaccel.tracing.trace import PRECISIONS, ModelTrace, precision_of
from pytest_hfaccel.tracing.traces import trace_of

DEFAULT_LENGTH = 128
"""Tokens per sample of texts when the caller does not say: the length of a short paragraph."""

USABLE_SHARE = 0.7
"""Share of a device's memory a model may fill; the pool's own default, so that what is advised can be loaded."""

USABLE_SHARE_SPLIT = 0.9
"""Share of each device's memory that is counted on when a model is split over several: the runtime's own, communication
buffers and unequal parts take the rest."""

MOST_SAMPLES = 32
"""Largest batch that is advised. A convention: whether more pays is a question of throughput, which is measured."""

_SECONDS_PER_SAMPLE = 1.0
"""So many cores are advised that a sample takes at most this long."""

_FP32 = PRECISIONS["fp32"].activation

# What a model holds, and what running it takes


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


def cost_of(
    architecture: str, dims: Mapping[str, Any], *, length: int, cache_dir: Path | None = None
) -> ArchitectureCost:
    """Compute what a model of these dimensions costs, from its traces in fp32 at batches 1 and 2.

    A model without a pass on fake tensors still has parameters: its cost says why the rest is not known.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs.
        cache_dir: Where traces are remembered: the first one takes seconds.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    try:
        one, two = (trace_of(architecture, dims, batch=batch, length=length, cache_dir=cache_dir) for batch in (1, 2))
    except LoadError as error:
        return _cost_at_rest(architecture, dims, length, error.message)
    # Activations grow linearly with the batch.
    per_sample = max(0, two.activation_bytes - one.activation_bytes)
    run = RunCost(
        fixed_bytes=max(0, one.activation_bytes - per_sample),
        bytes_per_sample=per_sample,
        output_bytes_per_sample=one.output_bytes,
        flops_per_sample=one.flops,
        multiplied_bytes=one.multiplied_bytes,
    )
    return ArchitectureCost(one.parameters, one.buffer_bytes, one.stored_buffer_bytes, one.length, run)


def _cost_at_rest(architecture: str, dims: Mapping[str, Any], length: int, problem: str) -> ArchitectureCost:
    from pytest_hfaccel.tracing.input_shapes import text_length
    from pytest_hfaccel.tracing.recording import weights_of
    from pytest_hfaccel.tracing.torch.fake_model import meta_model

    model = meta_model(architecture, dims)  # where this was the problem, it raises
    held, length = weights_of(model), text_length(model.config, length)
    return ArchitectureCost(held.parameters, held.buffer_bytes, held.stored_buffer_bytes, length, None, problem)


# What a runtime adds to that


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
        added = self.added(cost.multiplied_bytes(dtype), activations, cost.output_bytes(dtype, batch))
        return int(self.import_bytes + weights + added)

    def added(self, multiplied: float, activations: float, outputs: float) -> float:
        """Bytes at the peak besides the weights and the imports."""
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


# What both mean for a device


@dataclass(frozen=True)
class Requirements:
    """What a model needs on one kind of device, at one dtype, in MB of 2**20 bytes.

    Attributes:
        min_memory_mb: Peak with one sample.
        recommended_memory_mb: Peak with `batch_size` samples.
        cpu_cores: Cores worth having.
        disk_space_mb: The checkpoint's weights.
        batch_size: Largest power of two whose peak fits, 1 where not even one sample or nothing is known.
        device: Kind of device.
        dtype: The dtype the numbers are for.
        length: Tokens per sample of texts.
        parameters: Number of parameters.
        weights_mb: Weights and buffers.
        activations_mb: Activations at the peak, for one sample.
        fits: Whether one sample fits; `None` where the device's memory is not known.
        sources: Where each number comes from, by field.
    """

    min_memory_mb: int
    recommended_memory_mb: int
    cpu_cores: int
    disk_space_mb: int
    batch_size: int
    device: str
    dtype: str
    length: int
    parameters: int
    weights_mb: int
    activations_mb: int
    fits: bool | None
    sources: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form; names carry the units."""
        return asdict(self)


def requirements_on(
    kind: str, cost: ArchitectureCost, *, dtype: str, memory_bytes: int | None, cores: int, origin: str
) -> Requirements:
    """Compute what a model needs on a kind of device."""
    overhead = overhead_of(kind)
    batch, fits = _batch(cost, overhead, dtype, memory_bytes)
    speed = overhead.flops_per_second_and_core if cost.run else 0
    wanted = math.ceil(cost.run.flops_per_sample / speed / _SECONDS_PER_SAMPLE) if cost.run and speed else 1
    weights = (
        f"{cost.parameters:,} parameters at {dtype} and their buffers: the class built on the meta device with the "
        f"dimensions of {origin}"
    )
    traced = f"a forward pass on fake tensors at {dtype}, {cost.length} tokens of text per sample"
    activations = traced if cost.run else f"not known: {cost.problem}"
    memory = f"weights, activations ({activations}), and what the runtime adds: {overhead.source}"
    largest = (
        f"the largest power of two up to {MOST_SAMPLES} that fits {USABLE_SHARE:.0%} of the device's memory "
        f"({(memory_bytes or 0) // MIB} MB)"
    )
    fast = f"one sample in at most {_SECONDS_PER_SAMPLE:g} s at the measured speed of a core, at most those present"
    return Requirements(
        min_memory_mb=_mb(overhead.peak_bytes(cost, dtype, 1)),
        recommended_memory_mb=_mb(overhead.peak_bytes(cost, dtype, batch)),
        cpu_cores=max(1, min(cores, wanted)),
        disk_space_mb=_mb(cost.disk_bytes(dtype)),
        batch_size=batch,
        device=kind,
        dtype=dtype,
        length=cost.length,
        parameters=cost.parameters,
        weights_mb=_mb(cost.weight_bytes(dtype)),
        activations_mb=_mb(cost.activation_bytes(dtype, 1)),
        fits=fits,
        sources={
            "weights_mb": weights,
            "disk_space_mb": weights,
            "activations_mb": activations,
            "min_memory_mb": memory,
            "recommended_memory_mb": memory,
            "batch_size": largest if memory_bytes is not None else "1, because the memory of the device is not known",
            "cpu_cores": fast if speed else "one core feeds the device",
        },
    )


def _batch(cost: ArchitectureCost, overhead: Overhead, dtype: str, memory_bytes: int | None) -> tuple[int, bool | None]:
    if memory_bytes is None:
        return 1, None
    usable = USABLE_SHARE * memory_bytes
    if overhead.peak_bytes(cost, dtype, 1) > usable:
        return 1, False
    batch = 1
    while cost.run and batch < MOST_SAMPLES and overhead.peak_bytes(cost, dtype, 2 * batch) <= usable:
        batch *= 2
    return batch, True


def _mb(size: int) -> int:
    """Whole megabytes, rounded up: 0 would read as nothing."""
    return math.ceil(size / MIB)


# Whether a prediction fits


def memory_of(trace: ModelTrace, device_kind: str) -> Estimate:
    """Return what a model adds to the memory of a device at the peak of a forward pass (a training step), in MiB.

    Where an overhead was measured, four fifths of the registered models stay within these factors
    (`docs/requirements_accuracy.md`). Elsewhere the computed bytes are a lower bound; allocators of accelerators round
    up and keep what was freed, and twice as much has room for both.
    """
    overhead = overhead_of(device_kind)
    added = overhead.added(trace.multiplied_bytes, trace.activation_bytes, trace.output_bytes)
    mib = (trace.weight_bytes + added) / MIB
    return Estimate.between(mib, *((0.85, 1.20) if overhead.is_measured else (1.0, 2.0)))


MemoryAt = Callable[[int, str], float | None]
"""Predicts the memory in MiB at a batch and dtype."""


def with_fit(found: Prediction, platform: Platform, memory_at: MemoryAt) -> Prediction:
    """Return a prediction with `fits`, and with advice when it does not fit.

    It fits when the predicted peak is at most the device's memory; of a device of this machine at most the share of it
    that the pool fills, so that what is advised can be loaded. Where either is not known, `fits` stays `None`.
    """
    need, have = found.memory_mb, platform.memory_bytes
    if need is None or have is None:
        return found
    have_mb = have / MIB * (USABLE_SHARE if platform.is_present else 1)
    memory = {"device_memory_mb": round(have / MIB, 1), "device_memory_source": platform.memory_source}
    fits, advice = need.value <= have_mb, ""
    if not fits:
        advice = _advice(found, need, have_mb, memory_at)
    elif need.high > have_mb:
        advice = f"It may just not fit: up to {memory_text(need.high)} are possible, of {memory_text(have_mb)}."
    return replace(found, fits=fits, advice=advice, details={**found.details, **memory})


_SMALLER = {"fp32": ("bf16", "fp16", "int8"), "bf16": ("int8",), "fp16": ("int8",)}


def _advice(found: Prediction, need: Estimate, have_mb: float, memory_at: MemoryAt) -> str:
    question, options = found.question, []
    # The first smaller dtype that fits, and the first half, quarter, ... of the batch.
    for dtype in _SMALLER.get(question.dtype, ()):
        memory = None if question.training and dtype == "int8" else memory_at(question.batch, dtype)
        if memory is not None and memory <= have_mb:
            options.append(f"{dtype} ({memory_text(memory)}{', quantized weights' if dtype == 'int8' else ''})")
            break
    for batch in (question.batch >> halved for halved in range(1, question.batch.bit_length())):
        memory = memory_at(batch, question.dtype)
        if memory is not None and memory <= have_mb:
            options.append(f"batch {batch} ({memory_text(memory)})")
            break
    if question.device_kind in GPU_KINDS:
        devices = math.ceil(need.value / (USABLE_SHARE_SPLIT * have_mb))
        each_takes = memory_text(need.value / devices)
        options.append(f"{devices} such devices among which the model is split ({each_takes} each)")
    missing = (
        f"Does not fit: needs {memory_text(need.value)} at {question.dtype} and batch {question.batch}, of "
        f"{memory_text(have_mb)}."
    )
    return f"{missing} Would fit: {'; '.join(options)}." if options else missing
