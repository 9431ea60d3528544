"""Gradients: which parameters get one, which cannot, and how far two sets of them are apart."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from pytest_hfaccel.checks.training.losses import Loss

Gradients = dict[str, torch.Tensor]

_SAME_LOSS = 1e-6
"""Relative difference of two losses that are the same but for the order of a sum."""


def trainable_names(model: Any) -> set[str]:
    """Return the parameters that the class itself leaves trainable: some freeze tables of positions when they are made.

    The loaded model cannot tell, because checkpoints are loaded without gradients; one without weights can.
    """
    with torch.device("meta"):
        fresh = type(model)(model.config)
    frozen = {name for name, parameter in fresh.named_parameters() if not parameter.requires_grad}
    named = model.named_parameters()
    return {name for name, parameter in named if parameter.is_floating_point() and name not in frozen}


def backward(loss: Loss, model: Any) -> tuple[torch.Tensor, Gradients, int]:
    """Run forward and backward.

    Returns:
        The loss, the gradients by parameter, and the bytes of activations kept between the two.
    """
    model.zero_grad(set_to_none=True)
    kept = _Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        value = loss(model)
    value.backward()
    gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return value.detach(), gradients, kept.nbytes


@contextlib.contextmanager
def checkpointing(model: Any) -> Iterator[None]:
    """Have a model keep fewer activations for the backward pass, and compute the others anew in it.

    transformers 5.23 renamed the methods; the old names go in version 6.
    """
    for kind in ("activation", "gradient"):
        enable = getattr(model, f"{kind}_checkpointing_enable", None)
        if enable is not None:
            enable(**{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}})
            try:
                yield
            finally:
                getattr(model, f"{kind}_checkpointing_disable")()
            return


def depended_on(names: Iterable[str], loss: Loss, model: Any) -> list[str]:
    """Return those of some parameters whose values change the loss.

    They are turned round and doubled, all at once and, if that changes the loss, one by one. A parameter without
    gradient that the loss does not depend on is right; one it depends on has been cut off.
    """
    names = list(names)
    before = _value(loss, model)
    if not names or math.isclose(_value_with(names, loss, model), before, rel_tol=_SAME_LOSS):
        return []
    changing = [
        name for name in names if not math.isclose(_value_with([name], loss, model), before, rel_tol=_SAME_LOSS)
    ]
    return changing or names


def largest_distance(found: Gradients, expected: Gradients) -> tuple[float, str]:
    """Return the largest distance of a gradient from the expected one, and its parameter.

    It is relative to the gradient's own norm, or to the root mean square of all gradients' norms where that is larger:
    some gradients are zero in exact arithmetic (that of a bias of attention's keys) and hold rounding only.
    """
    norms = {name: float(gradient.double().norm()) for name, gradient in expected.items()}
    usual = math.sqrt(sum(norm**2 for norm in norms.values()) / max(1, len(norms)))
    worst, where = 0.0, ""
    for name, gradient in expected.items():
        other = found.get(name)
        if other is None:
            return math.inf, name
        distance = float((other.double() - gradient.double()).norm()) / (max(norms[name], usual) or 1.0)
        if not distance <= worst:  # also when it is NaN
            worst, where = distance, name
    return worst, where


def _value(loss: Loss, model: Any) -> float:
    with torch.no_grad():
        return float(loss(model))


def _value_with(names: list[str], loss: Loss, model: Any) -> float:
    parameters = dict(model.named_parameters())
    originals = {name: parameters[name].detach().clone() for name in names}
    try:
        for name in names:
            parameters[name].data.mul_(-2.0).add_(1.0)
        return _value(loss, model)
    finally:
        for name, original in originals.items():
            parameters[name].data.copy_(original)


class _Kept:
    """Counts the bytes that autograd keeps for the backward pass; parameters, and what is kept twice, count not."""

    def __init__(self, model: Any) -> None:
        self.nbytes = 0
        self._known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.nbytes += storage.nbytes()
        return tensor
