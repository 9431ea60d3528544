"""Recording one pass of a model, forward or a whole training step, on fake tensors or on real ones.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pytest_hfaccel.tracing.torch.recorder import LiveBytes, Recorder

Inputs = Mapping[str, torch.Tensor]
Forward = Callable[[Any, Inputs], Any]


@dataclass(frozen=True)
class Pass:
    """What was recorded."""

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


class Trainer:
    """Does training steps on a model as transformers' own Trainer does them by default: with torch's fused AdamW.

    The optimizer keeps two moments per parameter in fp32, 8 bytes (Loshchilov and Hutter 2019, arXiv 1711.05101;
    `torch.optim.AdamW`). A model in fp16 or bf16 is trained in mixed precision: the optimizer works on an fp32 copy of
    the parameters, 4 bytes more (Micikevicius et al. 2018, arXiv 1710.03740; the K = 12 bytes of ZeRO, arXiv
    1910.02054). Gradients have the dtype of the parameters.

    Args:
        model: The model; it is put into training mode, without its random masks over sound.
    """

    def __init__(self, model: Any) -> None:
        for module in model.modules():
            # SpecAugment (Park et al. 2019, arXiv 1904.08779): where it masks is known only with values.
            if hasattr(getattr(module, "config", None), "apply_spec_augment"):
                module.config.apply_spec_augment = False
        self._trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
        full = (torch.float32, torch.float64)
        self._copies = [
            parameter if parameter.dtype in full else torch.nn.Parameter(parameter.detach().float())
            for parameter in self._trained
        ]
        self._optimizer = torch.optim.AdamW(self._copies, fused=True)
        # In all steps but the first the optimizer has its state before the forward pass.
        for copy in self._copies:
            copy.grad = torch.zeros_like(copy)
        self._optimizer.step()
        self._optimizer.zero_grad()

    @property
    def state(self) -> list[torch.Tensor]:
        """What the optimizer keeps from step to step, copies of the parameters included."""
        moments = [value for state in self._optimizer.state.values() for value in state.values()]
        own = {id(parameter) for parameter in self._trained}
        return [*(copy for copy in self._copies if id(copy) not in own), *moments]

    def step(self, forward: Callable[[], Any]) -> Any:
        """Run forward, backward and optimizer; return the outputs of the forward pass."""
        with KeepLayers():
            outputs = forward()
        loss_of(outputs).backward()
        for parameter, copy in zip(self._trained, self._copies, strict=True):
            if copy is not parameter and parameter.grad is not None:
                copy.grad, parameter.grad = parameter.grad.float(), None
        self._optimizer.step()
        self._optimizer.zero_grad()
        with torch.no_grad():
            for parameter, copy in zip(self._trained, self._copies, strict=True):
                if copy is not parameter:
                    parameter.copy_(copy)
        return outputs


class KeepLayers(TorchFunctionMode):  # type: ignore[misc]
    """Keeps every layer of models that drop layers at random in training: a trace counts them all.

    LayerDrop (Fan et al. 2020, arXiv 1909.11556) compares a drawn number with its share; fake tensors have no values
    to compare, and of the numbers between 0 and 1 this one is never below a share.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer the draw of a single number; run all else."""
        if func is torch.rand and args in (([],), ((),)):
            return torch.tensor(1.0)
        return func(*args, **(kwargs or {}))


def loss_of(outputs: Any) -> torch.Tensor:
    """Return the sum of the outputs that depend on weights, caches and hidden states of layers left out.

    Any loss would do: its own work is small, and every weight that the outputs depend on gets its gradient.
    """
    values = outputs if isinstance(outputs, (tuple, list)) else outputs.values()
    terms = [value.sum() for value in values if isinstance(value, torch.Tensor) and value.requires_grad]
    return torch.stack([term.float() for term in terms]).sum()
