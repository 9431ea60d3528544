"""Check `training`: the model learns on this device. Only with `--hf-training`.

A copy of the model, without dropout, is run forward and backward on the sample; then the optimizer makes one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, is_torch_cell, move_to, passed, private_copy
from pytest_hfaccel.checks.training_loss import RANDOMNESS, Loss, choose_loss, without_dropout
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.numerics.tolerances import SECOND_CHANCE_CEILING, SECOND_CHANCE_FACTOR, tolerance_of

if TYPE_CHECKING:
    import torch

    Gradients = dict[str, torch.Tensor]

_RATES = (1e-3, 1e-4, 1e-5)
"""A right gradient points downhill, so that a short enough step lowers the loss; steep losses need short ones."""
_RATES_16_BIT = (1e-3, 1e-2, 1e-4)
"""In 16 bits a step that is too short is rounded away."""

_SAME_LOSS = 1e-6
"""Relative difference of two losses that are the same but for the order of a sum."""

_UNREACHED = "the loss does not depend on it: with other values it is the same"
_NAMES_SHOWN = 8


@built_in("training", stage=Stage.RUN, applies=is_torch_cell, option="training")
def training(context: CheckContext) -> CheckOutcome:
    """The loss is finite, its gradients reach what it depends on, checkpointing keeps them, and a step lowers it."""
    step = TrainingStep(context)
    for part in (step.compute_gradients, step.compare_checkpointing, step.lower_loss):
        problem = part()
        if problem:
            return failed(problem, stage=Stage.RUN, **step.measures)
    return passed(**step.measures)


class TrainingStep:
    """Trains a copy of the cell's model on its sample. Each part returns what is wrong; empty when nothing is.

    Attributes:
        measures: The numbers measured so far.
    """

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        names = trainable_names(context.loaded.pipeline_model())
        self._model = _trainable_copy(context, names, context.cell.dtype)
        self._names = names
        self._loss = choose_loss(self._model, move_to(self._model, context.sample.forward), context.cell.model)
        self._before = math.nan
        self._gradients: Gradients = {}
        self.measures: dict[str, Any] = {"loss": self._loss.what, "chance": RANDOMNESS, "trainable": len(names)}

    def compute_gradients(self) -> str:
        """Forward and backward: the loss is finite, and so is every gradient; none is missing that it depends on."""
        try:
            value, self._gradients, nbytes = backward(self._loss, self._model)
        except NotImplementedError as error:  # the device has no kernel for it at this dtype
            return f"forward or backward cannot run here ({self._loss.what}): {error}"
        self._before = float(value)
        self.measures |= {"loss_before": self._before, "activation_bytes": nbytes}
        if not math.isfinite(self._before):
            return f"the loss is {self._before} ({self._loss.what})"
        broken = [name for name, gradient in self._gradients.items() if not bool(gradient.isfinite().all())]
        if broken:
            return f"gradients with NaN or infinity: {_shortened(broken)}"
        return self._missing_gradients()

    def compare_checkpointing(self) -> str:
        """Gradient checkpointing, where the class has it, gives the same gradients."""
        if not getattr(self._model, "supports_gradient_checkpointing", False):
            self.measures["gradient_checkpointing"] = "not supported by the class"
            return ""
        with _checkpointing(self._model):
            _, again, nbytes = backward(self._loss, self._model)
        distance, where = largest_distance(again, self._gradients)
        self.measures["gradient_checkpointing"] = {"rel_l2": distance, "activation_bytes": nbytes}
        limit = tolerance_of(self._context.cell).rel_l2
        if not distance <= limit and self._context.cell.dtype != "fp32":
            limit = self._second_chance(limit)
        if distance <= limit:
            return ""
        return f"with gradient checkpointing the gradient of {where} is off by rel-L2 {distance:.3g} > {limit:.3g}"

    def lower_loss(self) -> str:
        """One step of AdamW lowers the loss on the same batch."""
        rates = _RATES if self._context.cell.dtype == "fp32" else _RATES_16_BIT
        for rate in rates:
            after = self._loss_after(rate)
            self.measures |= {"learning_rate": rate, "loss_after": after}
            if after < self._before:
                return ""
        return (
            f"one step of AdamW does not lower the loss of {self._before:.6g}, at no rate of {rates}: now {after:.6g}"
        )

    def _second_chance(self, limit: float) -> float:
        """Return the distance that rounding explains: T5 takes another kernel of attention while it checkpoints.

        The rule is that of parity: so many times the distance of this dtype's gradients from those in fp32, up to a
        multiple of the table's number.
        """
        exact = _trainable_copy(self._context, self._names, "fp32")
        inputs = {name: _to_fp32(value) for name, value in self._loss.inputs.items()}
        _, gradients, _ = backward(replace(self._loss, inputs=inputs), exact)
        rounding, _ = largest_distance(self._gradients, gradients)
        self.measures["gradient_rounding"] = rounding
        return min(max(limit, SECOND_CHANCE_FACTOR * rounding), SECOND_CHANCE_CEILING * limit)

    def _missing_gradients(self) -> str:
        missing = sorted(self._names - self._gradients.keys())
        cut_off = _dependencies(missing, self._loss, self._model)
        unreached = [name for name in missing if name not in cut_off]
        self.measures |= {"gradients": len(self._gradients), "unreached": dict.fromkeys(unreached, _UNREACHED)}
        if not self._gradients:
            return "no parameter gets a gradient"
        return f"no gradient, although the loss depends on them: {_shortened(cut_off)}" if cut_off else ""

    def _loss_after(self, rate: float) -> float:
        """Make a step, look at the loss, and take the step back. The optimizer works in fp32 whatever the model is."""
        import torch

        trained = {name: p for name, p in self._model.named_parameters() if name in self._gradients}
        originals = {name: parameter.detach().clone() for name, parameter in trained.items()}
        copies = {name: torch.nn.Parameter(original.float()) for name, original in originals.items()}
        for name, copy in copies.items():
            copy.grad = self._gradients[name].float()
        torch.optim.AdamW(copies.values(), lr=rate).step()
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(copies[name])
            after = float(self._loss(self._model))
            for name, parameter in trained.items():
                parameter.copy_(originals[name])
        return after


def _trainable_copy(context: CheckContext, names: set[str], dtype: str) -> Any:
    """Return a copy of the model in training mode, without dropout, some of its parameters trainable."""
    model = without_dropout(private_copy(context, dtype)).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def _to_fp32(value: Any) -> Any:
    import torch

    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _shortened(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def trainable_names(model: Any) -> set[str]:
    """Return the parameters that the class itself leaves trainable: some freeze tables of positions when they are made.

    The loaded model cannot tell, because checkpoints are loaded without gradients; one without weights can.
    """
    import torch

    with torch.device("meta"):
        fresh = type(model)(model.config)
    frozen = {name for name, parameter in fresh.named_parameters() if not parameter.requires_grad}
    named = model.named_parameters()
    return {name for name, parameter in named if parameter.is_floating_point() and name not in frozen}


def backward(loss: Loss, model: Any) -> tuple[torch.Tensor, Gradients, int]:
    """Run forward and backward.

    Returns:
        The loss, the gradients by parameter, and the bytes of activations that autograd keeps between the two: without
        parameters, and what is kept twice counts once.
    """
    import torch

    model.zero_grad(set_to_none=True)
    nbytes = 0
    counted = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal nbytes
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            nbytes += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        value = loss(model)
    value.backward()
    gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return value.detach(), gradients, nbytes


@contextmanager
def _checkpointing(model: Any) -> Iterator[None]:
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


def _dependencies(names: list[str], loss: Loss, model: Any) -> list[str]:
    """Return those of some parameters whose values change the loss.

    All are changed at once and, if that changes the loss, one by one. A parameter without gradient that the loss does
    not depend on is right; one that it depends on has been cut off.
    """
    before = _value(loss, model)
    if not names or math.isclose(_value_with(names, loss, model), before, rel_tol=_SAME_LOSS):
        return []
    changing = [
        name for name in names if not math.isclose(_value_with([name], loss, model), before, rel_tol=_SAME_LOSS)
    ]
    return changing or names


def largest_distance(actual: Gradients, expected: Gradients) -> tuple[float, str]:
    """Return the largest distance of a gradient from the expected one, and its parameter.

    It is relative to the gradient's own norm, or to the root mean square of all gradients' norms where that is larger:
    some gradients are zero in exact arithmetic (that of a bias of attention's keys) and hold rounding only.
    """
    norms = {name: float(gradient.double().norm()) for name, gradient in expected.items()}
    typical = math.sqrt(sum(norm**2 for norm in norms.values()) / max(1, len(norms)))
    worst, where = 0.0, ""
    for name, gradient in expected.items():
        other = actual.get(name)
        if other is None:
            return math.inf, name
        distance = float((other.double() - gradient.double()).norm()) / (max(norms[name], typical) or 1.0)
        if not distance <= worst:  # also when it is NaN
            worst, where = distance, name
    return worst, where


def _value(loss: Loss, model: Any) -> float:
    import torch

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
