"""What a model is trained on: its own loss where there are labels for it, else a stated one on its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.training.chance import seeded
from pytest_hfaccel.checks.training.labels import label_inputs
from pytest_hfaccel.core.tasks import GENERIC, task_of

Tensors = Mapping[str, torch.Tensor]

_LARGE = 1e4
"""Outputs beyond this are fill values ("never"), which no training moves."""

STATED = "the mean squared distance of the outputs from seeded normal numbers, relative to their own mean square"


@dataclass
class Loss:
    """How a batch becomes a number.

    Attributes:
        inputs: What the model is called with, labels included.
        what: In words: the model's own loss and its labels, or the stated one.
        own: Whether it is the model's own.
        targets: Of the stated loss: by output what it is compared with, and its mean square at the start.
    """

    inputs: dict[str, Any]
    what: str
    own: bool
    targets: dict[str, tuple[torch.Tensor, float]] = field(default_factory=dict)

    def __call__(self, model: Any) -> torch.Tensor:
        """Return the loss, a number in fp32 with its graph; the same for the same weights."""
        device = next(model.parameters()).device
        with seeded(device):
            output = model(**self.inputs)
        if self.own:
            return output["loss"].float().mean()
        return self._distance(flatten_outputs(output))

    def _distance(self, leaves: Tensors) -> torch.Tensor:
        terms = []
        for name, (target, square) in self.targets.items():
            kept = target.isfinite()
            difference = (leaves[name].float() - target)[kept]
            terms.append(difference.square().mean() / (1.0 + square))
        return torch.stack(terms).mean()


def choose_loss(model: Any, inputs: dict[str, torch.Tensor], spec: Any) -> Loss:
    """Choose what a model is trained on.

    Args:
        model: The transformers model in training mode.
        inputs: The inputs of `forward`, on its device.
        spec: The model's registry entry. Only where its task is one of those without a recipe of their own may the
            labels be wrong; there the stated loss is taken if the class refuses them.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), seeded(device):
        leaves = flatten_outputs(model(**inputs))
    labels = label_inputs(model, inputs, leaves)
    refusal = ""
    if labels is not None:
        own = Loss({**inputs, **labels}, f"the model's own, from {', '.join(labels)}", own=True)
        if task_of(spec).recipe != GENERIC:
            return own
        refusal = _refusal(own, model)
        if not refusal:
            return own
    return _stated(inputs, leaves, refusal)


def _refusal(loss: Loss, model: Any) -> str:
    try:
        with torch.no_grad():
            loss(model)
    except Exception as error:
        return f" (the class refuses {loss.what.rpartition(' ')[2]}: {type(error).__name__}: {error})".replace(
            "\n", " "
        )
    return ""


def _stated(inputs: dict[str, torch.Tensor], leaves: Tensors, refusal: str) -> Loss:
    targets = {}
    generator = torch.Generator().manual_seed(0)
    for name, leaf in leaves.items():
        if not leaf.is_floating_point() or not leaf.numel():
            continue
        now = leaf.float()
        target = torch.randn(leaf.shape, generator=generator).to(leaf.device)
        target[~(now.isfinite() & (now.abs() < _LARGE))] = float("nan")  # left out by the loss
        kept = now[target.isfinite()]
        if kept.numel():
            targets[name] = target, float(kept.square().mean())
    return Loss(dict(inputs), f"{STATED}: {', '.join(targets)}{refusal}", own=False, targets=targets)
