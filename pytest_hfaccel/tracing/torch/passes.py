"""Recording one pass of a model, on fake tensors or on real ones.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from pytest_hfaccel.tracing.torch.live_bytes import LiveBytes
from pytest_hfaccel.tracing.torch.recorder import Recorder
from pytest_hfaccel.tracing.torch.training import Trainer

Inputs = Mapping[str, torch.Tensor]
Forward = Callable[[Any, Inputs], Any]


@dataclass(frozen=True)
class Pass:
    """What was recorded.

    Attributes:
        recorder: The operators, and the memory they held.
        output: Bytes and floating-point numbers of the outputs.
        optimizer_bytes: Bytes of the optimizer's state.
    """

    recorder: Recorder
    output: tuple[int, int]
    optimizer_bytes: int = 0


def record_forward(model: Any, weights: Iterable[torch.Tensor], inputs: Inputs, forward: Forward) -> Pass:
    """Record a forward pass without gradients."""
    recorder = Recorder(weights, inputs.values())
    with torch.no_grad(), recorder:
        outputs = forward(model, inputs)
    # What is alive now is the outputs: caches, too, which are no tensors that could be listed.
    output = recorder.memory.live, recorder.memory.floats
    del outputs
    return Pass(recorder, output)


def record_step(model: Any, weights: Iterable[torch.Tensor], inputs: Inputs, forward: Forward) -> Pass:
    """Record a training step other than the first: the optimizer has its state already."""
    trainer = Trainer(model)
    recorder = Recorder(weights, inputs.values())
    for tensor in trainer.state:
        recorder.memory.note(tensor)
    state = recorder.memory.live
    with recorder:
        outputs = trainer.step(lambda: forward(model, inputs))
    return Pass(recorder, _held_by(outputs), state)


def _held_by(outputs: Any) -> tuple[int, int]:
    memory = LiveBytes(())
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor):
            memory.note(leaf)
    return memory.live, memory.floats
