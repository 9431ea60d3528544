"""Chooses the fastest way to split a model among those that fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pytest_hfaccel.predict.distributed.cluster import Cluster
from pytest_hfaccel.predict.distributed.layout import Layout, layouts
from pytest_hfaccel.predict.distributed.memory import DeviceMemory, device_memory
from pytest_hfaccel.predict.distributed.workload import BYTES, Blocks, Workload
from pytest_hfaccel.predict.prediction import Estimate
from pytest_hfaccel.tracing.trace import ModelTrace

USABLE = 0.9
"""Share of a device's memory that is counted on: the runtime's own, communication buffers and gaps take the rest."""

_CLEARLY = 1.05
"""A layout that takes more effort must be faster by this factor: predictions are no better than that."""

_RECOMPUTE = 4 / 3
"""Time of a step with recomputation: a forward pass more, which is a third of a step (Chen et al. 2016)."""

_OVERLAP = 2 / 3
"""Share of a step behind which sending is hidden: the backward pass, during which gradients are sent as they come (Li
et al. 2020, arXiv 2006.15704, "PyTorch distributed")."""


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


def plan(workload: Workload, cluster: Cluster, batch: int) -> list[Plan]:
    """Return all ways to split a model over a cluster: those that fit before those that do not, the best first.

    Args:
        workload: The model.
        cluster: The devices.
        batch: Samples of all devices together.
    """
    blocks = workload.blocks
    work_at = cache(lambda size: _Work.at(workload, size))
    found = []
    for layout in layouts(
        cluster.devices,
        batch=batch,
        training=workload.training,
        layers=blocks.layers,
        heads=blocks.heads,
        per_machine=cluster.per_machine,
    ):
        micro = -(-batch // (layout.data * layout.micro_batches))
        found.append(_plan(work_at(micro), blocks, layout, cluster, batch))
    return _ordered(found)


def _ordered(plans: list[Plan]) -> list[Plan]:
    """Put those that fit first, by time, and a plainer one before one that is not clearly faster."""
    by_time = sorted(plans, key=lambda each: (not each.fits, each.step_ms.value if each.fits else each.memory.total))
    if not by_time or not by_time[0].fits:
        return by_time
    limit = _CLEARLY * by_time[0].step_ms.value
    close = [each for each in by_time if each.fits and each.step_ms.value <= limit]
    first = min(close, key=lambda each: (each.layout.effort, each.step_ms.value))
    return [first, *(each for each in by_time if each is not first)]


@dataclass(frozen=True)
class _Work:
    """A micro-batch on one device."""

    trace: ModelTrace
    milliseconds: Estimate
    update_seconds: float

    @classmethod
    def at(cls, workload: Workload, size: int) -> _Work:
        return cls(workload.trace_at(size), workload.milliseconds_at(size), workload.update_seconds_at(size))


def _plan(work: _Work, blocks: Blocks, layout: Layout, cluster: Cluster, batch: int) -> Plan:
    trace, alone = work.trace, work.milliseconds
    compute = _compute(work, layout, cluster)
    hidden, exposed = _communication(trace, blocks, layout, cluster)
    step = compute + exposed + max(0.0, hidden - _OVERLAP * compute)
    below, above = alone.low / alone.value, alone.high / alone.value
    memory = device_memory(trace, blocks, layout)
    return Plan(
        layout=layout,
        batch=batch,
        compute_ms=1e3 * compute,
        communication_ms=1e3 * (hidden + exposed),
        step_ms=Estimate(1e3 * step, 1e3 * max(compute, exposed) * below, 1e3 * (compute * above + hidden + exposed)),
        memory=memory,
        fits=memory.total <= USABLE * cluster.memory_bytes,
    )


def _compute(work: _Work, layout: Layout, cluster: Cluster) -> float:
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
