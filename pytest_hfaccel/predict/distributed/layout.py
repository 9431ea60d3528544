"""The ways to split a model and its batch over devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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


def layouts(devices: int, *, batch: int, training: bool, layers: int, heads: int, per_machine: int) -> Iterator[Layout]:
    """Yield the layouts that use all devices, the plainest first.

    Args:
        devices: How many there are.
        batch: Samples of all devices together.
        training: Whether a training step is split, else a forward pass.
        layers: Layers of the model: no more stages than these.
        heads: Attention heads: a tensor-parallel group takes a whole number of them.
        per_machine: Devices that fast links connect; tensor parallelism stays among them.
    """
    found = [
        Layout(devices // (tensor * pipeline), tensor, pipeline, shards, parts, recompute)
        for tensor in _divisors(devices)
        if tensor <= per_machine and heads % tensor == 0
        for pipeline in _divisors(devices // tensor)
        if pipeline <= layers and devices // (tensor * pipeline) <= batch
        for shards in _shards(devices // (tensor * pipeline), pipeline, training=training)
        for parts in _parts(batch, devices // (tensor * pipeline), pipeline, training=training)
        for recompute in ((False, True) if training else (False,))
    ]
    yield from sorted(found, key=lambda layout: layout.effort)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _shards(data: int, pipeline: int, *, training: bool) -> tuple[int, ...]:
    if data == 1 or not training:
        return (0,)
    # Gradients and weights that are sharded would be gathered for every micro-batch of a pipeline.
    return (0, 1) if pipeline > 1 else (0, 1, 2, 3)


def _parts(batch: int, data: int, pipeline: int, *, training: bool) -> Iterator[int]:
    """Yield into how many micro-batches a device's share of the batch can be divided."""
    share = -(-batch // data)
    if not training and pipeline == 1:
        yield 1
        return
    parts = 1
    while parts <= share:
        yield parts
        parts *= 2
