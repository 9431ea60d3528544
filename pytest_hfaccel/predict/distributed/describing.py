"""A plan as plain JSON and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_hfaccel.predict.distributed.cluster import Cluster
from pytest_hfaccel.predict.distributed.planning import USABLE, Plan
from pytest_hfaccel.predict.words import MIB, memory_text, time_text

_GIB = 2**30

SOURCES = (
    "sharded states: ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054)",
    "tensor parallelism: Megatron-LM (Shoeybi et al. 2019, arXiv 1909.08053; Korthikanti 2022, arXiv 2205.05198)",
    "pipelines: GPipe (Huang et al. 2019, arXiv 1811.06965; Narayanan et al. 2021, arXiv 2104.04473)",
    "ring all-reduce: Patarasuk and Yuan 2009",
)


def describe_plan(chosen: Plan, cluster: Cluster, *, training: bool, alone_ms: float) -> dict[str, Any]:
    """Return a plan as plain JSON.

    Args:
        chosen: The plan.
        cluster: The devices.
        training: Whether a training step is split.
        alone_ms: Time of the whole batch on one device, as if it fitted there.
    """
    layout = chosen.layout
    return {
        "strategy": layout.strategy(training=training),
        "data_parallel": layout.data,
        "tensor_parallel": layout.tensor,
        "pipeline_parallel": layout.pipeline,
        "zero_stage": layout.shards,
        "gradient_accumulation_steps": layout.micro_batches if training else 1,
        "micro_batches": layout.micro_batches,
        "gradient_checkpointing": layout.recompute,
        "per_gpu_batch_size": -(-chosen.batch // layout.data),
        "global_batch_size": chosen.batch,
        "fits": chosen.fits,
        "memory_per_device_gb": _memory(chosen, cluster),
        "compute_ms": chosen.compute_ms,
        "communication_ms": chosen.communication_ms,
        "step_ms": chosen.step_ms.value,
        "step_interval_ms": [chosen.step_ms.low, chosen.step_ms.high],
        "throughput": chosen.samples_per_second,
        "scaling_efficiency": alone_ms / (cluster.devices * chosen.step_ms.value),
        "link": cluster.link_name,
    }


def in_words(plans: Sequence[Plan], cluster: Cluster, *, training: bool, name: str) -> str:
    """Say which plan is chosen and why, in a sentence or two."""
    chosen = plans[0]
    strategy = chosen.layout.strategy(training=training)
    need = f"{memory_text(chosen.memory.total / MIB)} per device of {memory_text(cluster.memory_bytes / MIB)}"
    if not chosen.fits:
        return (
            f"{name} does not fit {cluster.devices} devices in any of {len(plans)} ways to split it; {strategy} lacks "
            f"the least: {need}."
        )
    extras = [
        f"{chosen.layout.micro_batches} micro-batches" if chosen.layout.micro_batches > 1 else "",
        "activation checkpointing" if chosen.layout.recompute else "",
    ]
    how = ", ".join([strategy, *(extra for extra in extras if extra)])
    fitting = sum(each.fits for each in plans)
    return (
        f"{how} on {cluster.devices} devices: {need}, {time_text(chosen.step_ms.value)} per step of which "
        f"{time_text(chosen.communication_ms)} are sending ({cluster.link_name}); the fastest of the {fitting} of "
        f"{len(plans)} ways that fit."
    )


def _memory(chosen: Plan, cluster: Cluster) -> dict[str, float]:
    memory = chosen.memory
    parts = {
        "parameters_gb": memory.weights,
        "gradients_gb": memory.gradients,
        "optimizer_gb": memory.optimizer,
        "activations_gb": memory.activations,
        "per_gpu_gb": memory.total,
        "available_gb": USABLE * cluster.memory_bytes,
    }
    return {name: size / _GIB for name, size in parts.items()}
