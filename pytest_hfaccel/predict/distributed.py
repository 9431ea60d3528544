"""One model on several devices: which way of splitting it is fastest among those that fit, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Estimate
from pytest_hfaccel.predict.engine import Engine, Task
from pytest_hfaccel.predict.layers.datasheet import roofline_seconds, shares_of
from pytest_hfaccel.predict.naming import NamedModel
from pytest_hfaccel.predict.platforms import GB, Platform
from pytest_hfaccel.predict.requirements import USABLE_SHARE_SPLIT
from pytest_hfaccel.predict.text import MIB, memory_text, time_text
from pytest_hfaccel.tracing.trace import ModelTrace

GIB = 2**30

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}

SOURCES = (
    "sharded states: ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054)",
    "tensor parallelism: Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053; Korthikanti 2022, arXiv 2205.05198)",
    "pipelines: GPipe (Huang et al. 2019, arXiv 1811.06965; Narayanan et al. 2021, arXiv 2104.04473)",
    "ring all-reduce: Patarasuk and Yuan 2009",
)

_SERIAL_SHARE = 10 / 34
"""Share of a block's activations that tensor parallelism does not split (Korthikanti et al. 2022, arXiv 2205.05198,
"Reducing activation recomputation in large transformer models": sbh (10 + 24/t) of 34 sbh)."""

_CLEARLY = 1.05
"""A layout that takes more effort must be faster by this factor: predictions are no better than that."""

_RECOMPUTE = 4 / 3
"""Time of a step with recomputation: a forward pass more, which is a third of a step (Chen et al. 2016)."""

_OVERLAP = 2 / 3
"""Share of a step behind which sending is hidden: the backward pass, during which gradients are sent as they come (Li
et al. 2020, arXiv 2006.15704, "PyTorch distributed")."""


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind.

    Attributes:
        devices: How many.
        memory_bytes: Of each.
        link_bytes_per_second: Between devices of one machine, in one direction, per device.
        network_bytes_per_second: Between machines, likewise.
        per_machine: Devices of one machine.
        launch_seconds: What starting an operator costs, a collective one too.
        link_name: What the vendor calls the link, for people.
    """

    devices: int
    memory_bytes: int
    link_bytes_per_second: float
    network_bytes_per_second: float
    per_machine: int
    launch_seconds: float
    link_name: str

    def send(self, size: float, times: int, group: int) -> float:
        """Seconds to send `size` bytes to the next device of a group, `times` times: as fast as its slowest part."""
        bandwidth = self.link_bytes_per_second
        if group > self.per_machine:
            bandwidth = min(bandwidth, self.network_bytes_per_second)
        return times * (size / bandwidth + self.launch_seconds)

    def gather(self, size: float, group: int, times: int = 1, span: int | None = None) -> float:
        """Seconds to gather (or to reduce and scatter) `size` bytes in all over a group, `times` times.

        A ring sends (n - 1) / n of them through each device, and twice as many to sum them everywhere (Patarasuk and
        Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations").

        Args:
            size: Bytes.
            group: Devices of the group.
            times: How often.
            span: Devices among which the group is spread, where it does not lie together.
        """
        return 0.0 if group == 1 else self.send((group - 1) / group * size, times, span or group)

    def all_reduce(self, size: float, group: int, times: int = 1, span: int | None = None) -> float:
        """Seconds to sum `size` bytes on each device over a group; the arguments as for `gather`."""
        return self.gather(2 * size, group, times, span)


@dataclass(frozen=True)
class Layout:
    """A way to split the work over `data * tensor * pipeline` devices.

    Attributes:
        data: Groups of devices that each hold a copy of the model (or a shard of one) and take a part of the batch.
        tensor: Devices among which each matrix product is split (Shoeybi et al. 2019, arXiv 1909.08053, "Megatron-LM").
        pipeline: Devices among which the layers are split (Huang et al. 2019, arXiv 1811.06965, "GPipe").
        shards: What data-parallel devices split instead of copying (Rajbhandari et al. 2020, arXiv 1910.02054, "ZeRO"):
            0 nothing, 1 the optimizer's state, 2 gradients, too, 3 weights, too (PyTorch's FSDP).
        micro_batches: Parts in which a device's share of the batch is run, one after the other.
        recompute: Whether activations are computed again in the backward pass instead of kept (Chen et al. 2016, arXiv
            1604.06174).
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    shards: int = 0
    micro_batches: int = 1
    recompute: bool = False

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.data * self.tensor * self.pipeline

    @property
    def effort(self) -> int:
        """How much of it is more than copies of the model; of equally fast layouts the plainest is preferred."""
        return 2 * (self.tensor > 1) + 2 * (self.pipeline > 1) + self.shards + self.recompute + (self.micro_batches > 1)

    def strategy(self, *, training: bool) -> str:
        """Name it as its users do: `DDP`, `FSDP`, `tensor parallel x8`."""
        names = []
        if self.tensor > 1:
            names.append(f"tensor parallel x{self.tensor}")
        if self.pipeline > 1:
            names.append(f"pipeline parallel x{self.pipeline}")
        if self.data > 1:
            name = ("DDP", "ZeRO-1", "ZeRO-2", "FSDP")[self.shards] if training else "replicas"
            names.append(f"{name} x{self.data}" if names else name)
        return " + ".join(names) or "one device"


def layouts(devices: int, *, batch: int, training: bool, layers: int, heads: int, per_machine: int) -> list[Layout]:
    """Return the layouts that use all devices, the plainest first."""
    found = []
    for tensor in _divisors(devices):
        for pipeline in _divisors(devices // tensor):
            data = devices // (tensor * pipeline)
            if tensor > per_machine or heads % tensor or pipeline > layers or data > batch:
                continue
            # Gradients and weights that are sharded would be gathered for every micro-batch of a pipeline.
            most_shards = 0 if data == 1 or not training else 1 if pipeline > 1 else 3
            share = -(-batch // data) if training or pipeline > 1 else 1
            for shards in range(most_shards + 1):
                for halved in range(share.bit_length()):
                    for recompute in (False, True) if training else (False,):
                        found.append(Layout(data, tensor, pipeline, shards, 2**halved, recompute))
    return sorted(found, key=lambda layout: layout.effort)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


@dataclass(frozen=True)
class Blocks:
    """The shape of a transformer, as its trace shows it.

    Attributes:
        layers: Blocks with attention.
        width: Numbers per token between blocks.
        heads: Attention heads.
        tokens: Tokens per sample.
    """

    layers: int
    width: int
    heads: int
    tokens: int


def blocks_of(trace: ModelTrace) -> Blocks:
    """Return the shape of a model: from its attention operators, else from the matrix product it does most often."""
    attention = [one for one in trace.operators if "attention" in one.name and "backward" not in one.name]
    if attention:
        heads, tokens, head_width = (1, 1, 1, *attention[0].shapes[0])[-3:]
        return Blocks(sum(one.count for one in attention), heads * head_width, heads, tokens)
    products = [one for one in trace.operators if one.flops and one.out]
    if not products:
        return Blocks(1, 1, 1, max(1, trace.length))
    most = max(products, key=lambda one: one.count)
    return Blocks(max(1, most.count // 4), most.out[-1], 1, max(1, trace.length))


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on each device.

    Attributes:
        weights: Parameters and buffers.
        gradients: Their gradients; 0 without training.
        optimizer: AdamW's state: two moments in fp32, and an fp32 copy of parameters of fewer bits.
        activations: At the peak.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def device_memory(trace: ModelTrace, blocks: Blocks, layout: Layout) -> DeviceMemory:
    """Return the memory of a device.

    Sharding divides states by the number of data-parallel devices (ZeRO, arXiv 1910.02054, section 5); tensor and
    pipeline parallelism divide all states. A stage of a pipeline holds the activations of as many micro-batches as
    there are stages (Narayanan et al. 2021, arXiv 2104.04473, section 2.2).
    """
    gradients = trace.parameters * BYTES[trace.dtype] if trace.training else 0
    running: float = trace.activation_bytes - trace.optimizer_bytes
    # The peak is either where all gradients are there or, with larger batches, where all activations are.
    kept = running - gradients if running < 2 * gradients else running
    if layout.recompute:
        inputs = blocks.layers * trace.batch * blocks.tokens * blocks.width * BYTES[trace.dtype]
        kept = min(kept, inputs + kept / blocks.layers)
    in_flight = min(layout.pipeline, layout.micro_batches) if trace.training else layout.pipeline
    tensor = _SERIAL_SHARE + (1 - _SERIAL_SHARE) / layout.tensor

    def parts(stage: int) -> int:
        return layout.tensor * layout.pipeline * (layout.data if layout.shards >= stage else 1)

    return DeviceMemory(
        weights=trace.weight_bytes / parts(3),
        gradients=gradients / parts(2),
        optimizer=trace.optimizer_bytes / parts(1),
        activations=max(0.0, kept) * tensor * in_flight / layout.pipeline,
    )


@dataclass(frozen=True)
class Work:
    """A micro-batch on one device, as if it fitted there.

    Attributes:
        trace: What the model does.
        milliseconds: How long that takes.
        update_seconds: How much of that is the optimizer's update, which sharding divides.
    """

    trace: ModelTrace
    milliseconds: Estimate
    update_seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A way to split a model, and what it takes.

    Attributes:
        layout: The way.
        batch: Samples of all devices together.
        compute_ms: Time of the slowest device without sending.
        communication_ms: Time of sending.
        step_ms: Both, as far as they cannot be done at once, with the interval.
        memory: On each device.
        fits: Whether that is at most the usable share of a device's memory.
    """

    layout: Layout
    batch: int
    compute_ms: float
    communication_ms: float
    step_ms: Estimate
    memory: DeviceMemory
    fits: bool

    @property
    def samples_per_second(self) -> float:
        """Throughput of all devices together."""
        return 1e3 * self.batch / self.step_ms.value


def plan(work_at: Callable[[int], Work], cluster: Cluster, batch: int, *, training: bool) -> list[Plan]:
    """Return all ways to split a model over a cluster: those that fit before those that do not, the best first.

    A plainer way comes before one that is not clearly faster.

    Args:
        work_at: What one device does with so many samples.
        cluster: The devices.
        batch: Samples of all devices together.
        training: Whether a training step is split, else a forward pass.
    """
    work_at = cache(work_at)
    blocks = blocks_of(work_at(1).trace)
    ways = layouts(
        cluster.devices,
        batch=batch,
        training=training,
        layers=blocks.layers,
        heads=blocks.heads,
        per_machine=cluster.per_machine,
    )
    plans = [_plan(work_at(-(-batch // (way.data * way.micro_batches))), blocks, way, cluster, batch) for way in ways]
    plans.sort(key=lambda each: (not each.fits, each.step_ms.value if each.fits else each.memory.total))
    if not plans or not plans[0].fits:
        return plans
    limit = _CLEARLY * plans[0].step_ms.value
    close = [each for each in plans if each.fits and each.step_ms.value <= limit]
    first = min(close, key=lambda each: (each.layout.effort, each.step_ms.value))
    return [first, *(each for each in plans if each is not first)]


def _plan(work: Work, blocks: Blocks, layout: Layout, cluster: Cluster, batch: int) -> Plan:
    compute = _compute(work, layout, cluster)
    hidden, exposed = _communication(work.trace, blocks, layout, cluster)
    step = compute + exposed + max(0.0, hidden - _OVERLAP * compute)
    alone, memory = work.milliseconds, device_memory(work.trace, blocks, layout)
    below, above = alone.low / alone.value, alone.high / alone.value
    return Plan(
        layout=layout,
        batch=batch,
        compute_ms=1e3 * compute,
        communication_ms=1e3 * (hidden + exposed),
        step_ms=Estimate(1e3 * step, 1e3 * max(compute, exposed) * below, 1e3 * (compute * above + hidden + exposed)),
        memory=memory,
        fits=memory.total <= USABLE_SHARE_SPLIT * cluster.memory_bytes,
    )


def _compute(work: Work, layout: Layout, cluster: Cluster) -> float:
    """Seconds of computing: tensor parallelism splits the work of an operator, not the time to start it."""
    seconds, update = work.milliseconds.value / 1e3, work.update_seconds
    starting = min(seconds - update, work.trace.launches * cluster.launch_seconds)
    passes = starting + (seconds - update - starting) / layout.tensor
    passes *= _RECOMPUTE if layout.recompute else 1.0
    update /= layout.tensor * layout.pipeline * (layout.data if layout.shards else 1)
    # A pipeline is empty at both ends: (stages - 1) of (micro-batches + stages - 1) steps (GPipe, section 2.3).
    return passes / layout.pipeline * (layout.micro_batches + layout.pipeline - 1) + update


def _communication(trace: ModelTrace, blocks: Blocks, layout: Layout, cluster: Cluster) -> tuple[float, float]:
    """Return seconds of sending that can be hidden behind computing, and of sending that cannot."""
    number = BYTES["fp32" if trace.dtype == "int8" else trace.dtype]
    between = trace.batch * blocks.tokens * blocks.width * number
    # Megatron-LM: two sums per block in the forward pass, two in the backward pass.
    sums = (4 if trace.training else 2) * blocks.layers // layout.pipeline * layout.micro_batches
    exposed = cluster.all_reduce(between, layout.tensor, sums)
    if layout.pipeline > 1:
        group = layout.tensor * layout.pipeline
        exposed += cluster.send(between, (2 if trace.training else 1) * layout.micro_batches, group)
    if not trace.training:
        return 0.0, exposed
    held = trace.parameters * number / (layout.tensor * layout.pipeline)
    if layout.shards < 3:
        return cluster.all_reduce(held, layout.data, span=cluster.devices), exposed
    # Weights are gathered for the forward and for the backward pass of each micro-batch, gradients scattered once.
    return cluster.gather(held, layout.data, 2 * layout.micro_batches + 1, span=cluster.devices), exposed


@dataclass(frozen=True)
class Split:
    """The ways to split a model over a platform's devices.

    Attributes:
        plans: The ways, the chosen one first.
        cluster: The devices.
        training: Whether training steps are split.
        alone_ms: Time of the whole batch on one device, as if it fitted there.
        basis: What the time of one device rests on.
        title: The model and the platform, for people.
    """

    plans: list[Plan]
    cluster: Cluster
    training: bool
    alone_ms: float
    basis: str = ""
    title: str = ""

    @property
    def chosen(self) -> Plan:
        """The best way."""
        return self.plans[0]

    def to_json(self) -> dict[str, Any]:
        """Return the chosen way, and the next best ones, as plain JSON."""
        chosen, *others = [self._described(each) for each in self.plans[:5]]
        shown = ("strategy", "fits", "step_ms", "micro_batches", "gradient_checkpointing")
        return {
            **chosen,
            "gpu_count": self.cluster.devices,
            "explanation": self.explanation,
            "basis": f"one device: {self.basis}",
            "considered": [
                {**{name: each[name] for name in shown}, "per_gpu_gb": each["memory_per_device_gb"]["per_gpu_gb"]}
                for each in others
            ],
            "sources": list(SOURCES),
        }

    def _described(self, plan: Plan) -> dict[str, Any]:
        layout, memory = plan.layout, plan.memory
        sizes = {
            "parameters_gb": memory.weights,
            "gradients_gb": memory.gradients,
            "optimizer_gb": memory.optimizer,
            "activations_gb": memory.activations,
            "per_gpu_gb": memory.total,
            "available_gb": USABLE_SHARE_SPLIT * self.cluster.memory_bytes,
        }
        return {
            "strategy": layout.strategy(training=self.training),
            "data_parallel": layout.data,
            "tensor_parallel": layout.tensor,
            "pipeline_parallel": layout.pipeline,
            "zero_stage": layout.shards,
            "gradient_accumulation_steps": layout.micro_batches if self.training else 1,
            "micro_batches": layout.micro_batches,
            "gradient_checkpointing": layout.recompute,
            "per_gpu_batch_size": -(-plan.batch // layout.data),
            "global_batch_size": plan.batch,
            "fits": plan.fits,
            "memory_per_device_gb": {name: size / GIB for name, size in sizes.items()},
            "compute_ms": plan.compute_ms,
            "communication_ms": plan.communication_ms,
            "step_ms": plan.step_ms.value,
            "step_interval_ms": [plan.step_ms.low, plan.step_ms.high],
            "throughput": plan.samples_per_second,
            "scaling_efficiency": self.alone_ms / (self.cluster.devices * plan.step_ms.value),
            "link": self.cluster.link_name,
        }

    @property
    def explanation(self) -> str:
        """The chosen way in words, or what the one that lacks the least needs."""
        plan, cluster = self.chosen, self.cluster
        how = plan.layout.strategy(training=self.training)
        need = f"{memory_text(plan.memory.total / MIB)} per device of {memory_text(cluster.memory_bytes / MIB)}"
        if not plan.fits:
            return (
                f"{self.title} does not fit {cluster.devices} devices in any of {len(self.plans)} ways to split it; "
                f"{how} lacks the least: {need}."
            )
        how += f", {plan.layout.micro_batches} micro-batches" if plan.layout.micro_batches > 1 else ""
        how += ", activation checkpointing" if plan.layout.recompute else ""
        return (
            f"{how} on {cluster.devices} devices: {need}, {time_text(plan.step_ms.value)} per step of which "
            f"{time_text(plan.communication_ms)} are sending ({cluster.link_name}); the fastest of the "
            f"{sum(each.fits for each in self.plans)} of {len(self.plans)} ways that fit."
        )


def split(
    engine: Engine, model: NamedModel, platform: Platform, task: Task, devices: int, memory_bytes: int | None = None
) -> Split | None:
    """Return the ways to split a model over so many devices of a platform; `None` where its time is not known.

    Args:
        engine: Predicts one device.
        model: The model.
        platform: The kind of device.
        task: What is run.
        devices: How many devices.
        memory_bytes: Memory of each to count on, instead of all of it.

    Raises:
        ConfigError: The kind of device is not one that models are split over, or its memory is not known.
    """
    if platform.kind not in GPU_KINDS:
        raise ConfigError(f"{platform.name}: models are not split over such devices. Allowed: {', '.join(GPU_KINDS)}.")
    memory = memory_bytes or platform.memory_bytes
    if memory is None:
        raise ConfigError(
            f"{platform.name}: its memory is not known.", hint="Name a chip, as in 'cuda:h100-sxm', or max_memory_gb."
        )
    reached = shares_of(platform.kind).reached
    network = engine.config.network_gb_per_second * GB
    link = platform.chip.link if platform.chip else None
    cluster = Cluster(
        devices=devices,
        memory_bytes=memory,
        link_bytes_per_second=link.one_way if link else network,
        network_bytes_per_second=network,
        per_machine=int(engine.config.devices_per_machine),
        launch_seconds=reached.launch_seconds,
        link_name=f"{link.name}, {link.one_way / GB:.0f} GB/s each way" if link else f"{network / GB:.0f} GB/s assumed",
    )

    def work_at(batch: int) -> Work:
        part = replace(task, batch=batch)
        trace = engine.trace(model, part)
        if trace is None:
            raise ConfigError(f"{model.name}: it cannot be split, because its operators are not known. {model.origin}")
        milliseconds = engine.predict(model, platform, part).latency_ms
        if milliseconds is None:
            raise ConfigError(f"{model.name}: no time on {platform.title} can be predicted.")
        # The optimizer's update, by the data sheet.
        update = replace(trace, operators=tuple(one for one in trace.operators if "adam" in one.name))
        seconds = roofline_seconds(update, platform.chip, reached) if platform.chip and update.operators else None
        return Work(trace, milliseconds, seconds or 0.0)

    whole = engine.predict(model, platform, task)
    if whole.latency_ms is None:
        return None
    plans = plan(work_at, cluster, task.batch, training=task.training)
    title = f"{model.name} on {platform.title}"
    return Split(plans, cluster, task.training, whole.latency_ms.value, whole.basis, title) if plans else None
