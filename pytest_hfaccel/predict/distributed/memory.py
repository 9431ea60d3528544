"""Memory of one device of several."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hfaccel.predict.distributed.layout import Layout
from pytest_hfaccel.predict.distributed.workload import BYTES, Blocks
from pytest_hfaccel.tracing.trace import ModelTrace

_SERIAL_SHARE = 10 / 34
"""Share of a block's activations that tensor parallelism does not split (Korthikanti et al. 2022, arXiv 2205.05198,
"Reducing activation recomputation in large transformer models": sbh (10 + 24/t) of 34 sbh)."""


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

    Args:
        trace: What a device's micro-batch does on a single device.
        blocks: The shape of the model.
        layout: How it is split.
    """
    split = layout.tensor * layout.pipeline
    gradients = trace.parameters * BYTES[trace.dtype] if trace.training else 0

    def shard(stage: int) -> int:
        return split * (layout.data if layout.shards >= stage else 1)

    return DeviceMemory(
        weights=trace.weight_bytes / shard(3),
        gradients=gradients / shard(2),
        optimizer=trace.optimizer_bytes / shard(1),
        activations=_activations(trace, gradients, blocks, layout),
    )


def _activations(trace: ModelTrace, gradients: float, blocks: Blocks, layout: Layout) -> float:
    running = trace.activation_bytes - trace.optimizer_bytes
    # The peak is either where all gradients are there or, with larger batches, where all activations are.
    kept = running - gradients if running < 2 * gradients else running
    if layout.recompute:
        inputs = blocks.layers * trace.batch * blocks.tokens * blocks.width * BYTES[trace.dtype]
        kept = min(kept, inputs + kept / blocks.layers)
    in_flight = min(layout.pipeline, layout.micro_batches) if trace.training else layout.pipeline
    tensor = _SERIAL_SHARE + (1 - _SERIAL_SHARE) / layout.tensor
    return max(0.0, kept) * tensor * in_flight / layout.pipeline
