"""What is split: a model's states, activations and time on one device, at any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_hfaccel.predict.prediction import Estimate
from pytest_hfaccel.tracing.trace import ModelTrace, Operator

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


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


@dataclass(frozen=True)
class Workload:
    """A model at one dtype and length, to be split.

    Attributes:
        trace_at: What it does at a batch size.
        milliseconds_at: How long that takes on one device, with its interval; as if it fitted there.
        update_seconds_at: How much of that is the optimizer's update, which sharding divides.
        training: Whether a training step is meant.
        dtype: dtype of weights and activations.
    """

    trace_at: Callable[[int], ModelTrace]
    milliseconds_at: Callable[[int], Estimate]
    update_seconds_at: Callable[[int], float]
    training: bool
    dtype: str

    @property
    def blocks(self) -> Blocks:
        """The shape of the model."""
        return blocks_of(self.trace_at(1))


def blocks_of(trace: ModelTrace) -> Blocks:
    """Return the shape of a model: from its attention operators, else from the matrix product it does most often."""
    attention = [one for one in trace.operators if "attention" in one.name and "backward" not in one.name]
    if attention:
        _, heads, tokens, head_width = _four(attention[0])
        return Blocks(sum(one.count for one in attention), heads * head_width, heads, tokens)
    products = [one for one in trace.operators if one.flops and one.out]
    if not products:
        return Blocks(1, 1, 1, max(1, trace.length))
    most = max(products, key=lambda one: one.count)
    return Blocks(max(1, most.count // 4), most.out[-1], 1, max(1, trace.length))


def _four(operator: Operator) -> tuple[int, int, int, int]:
    shape = (1, 1, 1, 1, *operator.shapes[0])[-4:]
    return shape[0], shape[1], shape[2], shape[3]
