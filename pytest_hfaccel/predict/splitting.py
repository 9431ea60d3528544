"""A model on several devices of a platform."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.advisor.naming import NamedModel
from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.datasheet.roofline import roofline_seconds
from pytest_hfaccel.predict.datasheet.shares import shares_of
from pytest_hfaccel.predict.datasheet.specification import GB
from pytest_hfaccel.predict.distributed import Cluster, Plan, Workload, plan
from pytest_hfaccel.predict.distributed.describing import SOURCES, describe_plan, in_words
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.prediction import Estimate, Prediction
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.predict.engine import Engine


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
    basis: str
    title: str

    @property
    def chosen(self) -> Plan:
        """The best way."""
        return self.plans[0]

    def to_json(self) -> dict[str, Any]:
        """Return the chosen way, and the next best ones, as plain JSON."""
        described = [
            describe_plan(each, self.cluster, training=self.training, alone_ms=self.alone_ms) for each in self.plans[:5]
        ]
        others = [
            {name: each[name] for name in ("strategy", "fits", "step_ms", "micro_batches", "gradient_checkpointing")}
            | {"per_gpu_gb": each["memory_per_device_gb"]["per_gpu_gb"]}
            for each in described[1:]
        ]
        words = in_words(self.plans, self.cluster, training=self.training, name=self.title)
        return {
            **described[0],
            "gpu_count": self.cluster.devices,
            "explanation": words,
            "basis": f"one device: {self.basis}",
            "considered": others,
            "sources": list(SOURCES),
        }


@dataclass(frozen=True)
class Task:
    """What is run on the devices together.

    Attributes:
        batch: Samples of all devices together.
        length: Tokens per sample of texts.
        dtype: dtype of weights and activations.
        training: Whether a training step is meant.
    """

    batch: int
    length: int
    dtype: str
    training: bool


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
    cluster = _cluster(engine, platform, devices, memory_bytes)

    def predicted(batch: int) -> Prediction:
        return engine.predict(
            model, platform, batch=batch, length=task.length, dtype=task.dtype, training=task.training
        )

    def trace_at(batch: int) -> ModelTrace:
        found = engine.traces.at(model, batch=batch, length=task.length, dtype=task.dtype, training=task.training)
        if found is None:
            raise ConfigError(f"{model.name}: it cannot be split, because what it does is not known. {model.origin}")
        return found

    def milliseconds_at(batch: int) -> Estimate:
        found = predicted(batch).latency_ms
        if found is None:
            raise ConfigError(f"{model.name}: no time on {platform.title} can be predicted.")
        return found

    def update_seconds_at(batch: int) -> float:
        return _update_seconds(trace_at(batch), platform)

    whole = predicted(task.batch)
    if whole.latency_ms is None:
        return None
    workload = Workload(trace_at, milliseconds_at, update_seconds_at, task.training, task.dtype)
    plans = plan(workload, cluster, task.batch)
    if not plans:
        return None
    title = f"{model.name} on {platform.title}"
    return Split(plans, cluster, task.training, whole.latency_ms.value, whole.basis, title)


def _update_seconds(trace: ModelTrace, platform: Platform) -> float:
    """Return the time of the optimizer's update on one device, by the data sheet; 0 where there is none."""
    operators = tuple(one for one in trace.operators if "adam" in one.name)
    if platform.chip is None or not operators:
        return 0.0
    update = replace(trace, operators=operators)
    return roofline_seconds(update, platform.chip, shares_of(platform.kind).reached) or 0.0


def _cluster(engine: Engine, platform: Platform, devices: int, memory_bytes: int | None) -> Cluster:
    if platform.kind not in GPU_KINDS:
        raise ConfigError(f"{platform.name}: models are not split over such devices. Allowed: {', '.join(GPU_KINDS)}.")
    memory = memory_bytes or platform.memory_bytes
    if memory is None:
        raise ConfigError(
            f"{platform.name}: its memory is not known.", hint="Name a chip, as in 'cuda:h100-sxm', or max_memory_gb."
        )
    network = engine.config.network_gb_per_second * GB
    link = platform.chip.link if platform.chip else None
    return Cluster(
        devices=devices,
        memory_bytes=memory,
        link_bytes_per_second=link.one_way if link else network,
        network_bytes_per_second=network,
        per_machine=int(engine.config.devices_per_machine),
        launch_seconds=shares_of(platform.kind).reached.launch_seconds,
        link_name=f"{link.name}, {link.one_way / GB:.0f} GB/s each way" if link else f"{network / GB:.0f} GB/s assumed",
    )
