"""One lesson: a batch, its loss, the gradients, and a step of the optimizer.

Imports torch: import this file late.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.copies import own_copy, placed
from pytest_hfaccel.checks.tolerances import SECOND_CHANCE_CEILING, SECOND_CHANCE_FACTOR, tolerance_of
from pytest_hfaccel.checks.training.chance import HOW, without_dropout
from pytest_hfaccel.checks.training.gradients import (
    Gradients,
    backward,
    checkpointing,
    depended_on,
    largest_distance,
    trainable_names,
)
from pytest_hfaccel.checks.training.losses import choose_loss

_RATES = (1e-3, 1e-4, 1e-5)
"""A right gradient points downhill, so that a short enough step lowers the loss; steep losses need short ones."""
_RATES_16_BIT = (1e-3, 1e-2, 1e-4)
"""In 16 bits a step that is too short is rounded away."""

_UNREACHED = "the loss does not depend on it: with other values it is the same"
_NAMES_SHOWN = 8


class Lesson:
    """Trains a copy of the cell's model on its sample; the leased model is not touched.

    Args:
        context: The check's context.

    Attributes:
        measures: The numbers found so far.
    """

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        names = trainable_names(context.loaded.pipeline_model())
        self._model = _trainee(context, names, context.cell.dtype)
        self._names = names
        self._loss = choose_loss(self._model, placed(context.sample.forward, self._model), context.cell.model)
        self._before = math.nan
        self._gradients: Gradients = {}
        self.measures: dict[str, Any] = {"loss": self._loss.what, "chance": HOW, "trainable": len(names)}

    def learn(self) -> str:
        """Forward and backward: the loss is finite, and so is every gradient; none is missing that it depends on."""
        try:
            value, self._gradients, kept = backward(self._loss, self._model)
        except NotImplementedError as error:  # the device has no kernel for it at this dtype
            return f"forward or backward cannot run here ({self._loss.what}): {error}"
        self._before = float(value)
        self.measures |= {"loss_before": self._before, "activation_bytes": kept}
        if not math.isfinite(self._before):
            return f"the loss is {self._before} ({self._loss.what})"
        broken = [name for name, gradient in self._gradients.items() if not bool(gradient.isfinite().all())]
        if broken:
            return f"gradients with NaN or infinity: {_listed(broken)}"
        return self._missing()

    def checkpoint(self) -> str:
        """Gradient checkpointing, where the class has it, gives the same gradients."""
        if not getattr(self._model, "supports_gradient_checkpointing", False):
            self.measures["gradient_checkpointing"] = "not supported by the class"
            return ""
        with checkpointing(self._model):
            _, again, kept = backward(self._loss, self._model)
        distance, where = largest_distance(again, self._gradients)
        self.measures["gradient_checkpointing"] = {"rel_l2": distance, "activation_bytes": kept}
        limit = tolerance_of(self._context.cell).rel_l2
        if not distance <= limit and self._context.cell.dtype != "fp32":
            limit = self._second_chance(limit)
        if distance <= limit:
            return ""
        return f"with gradient checkpointing the gradient of {where} is off by rel-L2 {distance:.3g} > {limit:.3g}"

    def step(self) -> str:
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
        exact = _trainee(self._context, self._names, "fp32")
        inputs = {name: _in_fp32(value) for name, value in self._loss.inputs.items()}
        _, gradients, _ = backward(replace(self._loss, inputs=inputs), exact)
        rounding, _ = largest_distance(self._gradients, gradients)
        self.measures["gradient_rounding"] = rounding
        return min(max(limit, SECOND_CHANCE_FACTOR * rounding), SECOND_CHANCE_CEILING * limit)

    def _missing(self) -> str:
        missing = sorted(self._names - self._gradients.keys())
        cut_off = depended_on(missing, self._loss, self._model)
        unreached = [name for name in missing if name not in cut_off]
        self.measures |= {"gradients": len(self._gradients), "unreached": dict.fromkeys(unreached, _UNREACHED)}
        if not self._gradients:
            return "no parameter gets a gradient"
        return f"no gradient, although the loss depends on them: {_listed(cut_off)}" if cut_off else ""

    def _loss_after(self, rate: float) -> float:
        """Make a step, look at the loss, and take the step back. The optimizer works in fp32 whatever the model is."""
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


def _trainee(context: CheckContext, names: set[str], dtype: str) -> Any:
    """Return a copy of the model in training mode, without dropout, some of its parameters trainable."""
    model = without_dropout(own_copy(context, dtype)).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def _in_fp32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
