"""Check `training`: the model learns on this device. Only with `--hf-training`.

A copy of the model, without dropout, is run forward and backward on the sample; then the optimizer makes one step. It
is trained on its own loss where there are labels for it, made from what it takes and returns; else on its outputs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CheckContext, built_in, failed, is_eager_cell, move_to, passed, private_copy
from pytest_hfaccel.core.devices import torch_device_of
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.tasks import GENERIC, task_of
from pytest_hfaccel.numerics.tolerances import SECOND_CHANCE_CEILING, SECOND_CHANCE_FACTOR, tolerance_of
from pytest_hfaccel.upstream.torch import is_dropout

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]
    Gradients = dict[str, torch.Tensor]

_RATES = (1e-3, 1e-4, 1e-5)
"""A right gradient points downhill, so that a short enough step lowers the loss; steep losses need short ones."""
_RATES_16_BIT = (1e-3, 1e-2, 1e-4)
"""In 16 bits a step that is too short is rounded away."""

_SAME_LOSS = 1e-6
"""Relative difference of two losses that are the same but for the order of a sum."""

_UNREACHED = "the loss does not depend on it: with other values it is the same"
_NAMES_SHOWN = 8

_SEED = 0
_RANDOMNESS = "dropout, layer drop and SpecAugment are off; what chance remains is seeded"


@built_in("training", stage=Stage.RUN, applies=is_eager_cell, option="training")
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
        self._names = trainable_names(context.loaded.pipeline_model())
        self._model = self._trainable_copy(context.cell.dtype)
        self._loss = choose_loss(self._model, move_to(self._model, context.sample.forward), context.cell.model)
        self._before = math.nan
        self._gradients: Gradients = {}
        self.measures: dict[str, Any] = {
            "loss": self._loss.what,
            "chance": _RANDOMNESS,
            "trainable": len(self._names),
        }

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
        missing = sorted(self._names - self._gradients.keys())
        cut_off = self._changing_loss(missing)
        unreached = [name for name in missing if name not in cut_off]
        self.measures |= {"gradients": len(self._gradients), "unreached": dict.fromkeys(unreached, _UNREACHED)}
        if not self._gradients:
            return "no parameter gets a gradient"
        return f"no gradient, although the loss depends on them: {_shortened(cut_off)}" if cut_off else ""

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

    def _trainable_copy(self, dtype: str) -> Any:
        model = without_dropout(private_copy(self._context, dtype)).train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self._names)
        return model

    def _changing_loss(self, names: list[str]) -> list[str]:
        """Return those of some parameters whose values change the loss.

        All are changed at once and, if that changes the loss, one by one. A parameter without gradient that the loss
        does not depend on is right; one that it depends on has been cut off.
        """
        before = self._value({})
        weights = dict(self._model.named_parameters())

        def changes(changed: list[str]) -> bool:
            after = self._value({name: 1.0 - 2.0 * weights[name].detach() for name in changed})
            return not math.isclose(after, before, rel_tol=_SAME_LOSS)

        if not names or not changes(names):
            return []
        return [name for name in names if changes([name])] or names

    def _value(self, weights: Tensors) -> float:
        """Return the loss with other values of some parameters."""
        import torch

        parameters = {name: weight for name, weight in self._model.named_parameters() if name in weights}
        originals = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        with torch.no_grad():
            try:
                for name, parameter in parameters.items():
                    parameter.copy_(weights[name])
                return float(self._loss(self._model))
            finally:
                for name, parameter in parameters.items():
                    parameter.copy_(originals[name])

    def _second_chance(self, limit: float) -> float:
        """Return the distance that rounding explains: T5 takes another kernel of attention while it checkpoints.

        The rule is that of parity: so many times the distance of this dtype's gradients from those in fp32, up to a
        multiple of the table's number.
        """
        inputs = {name: _to_fp32(value) for name, value in self._loss.inputs.items()}
        _, gradients, _ = backward(replace(self._loss, inputs=inputs), self._trainable_copy("fp32"))
        rounding, _ = largest_distance(self._gradients, gradients)
        self.measures["gradient_rounding"] = rounding
        return min(max(limit, SECOND_CHANCE_FACTOR * rounding), SECOND_CHANCE_CEILING * limit)

    def _loss_after(self, rate: float) -> float:
        """Return the loss after a step, which is not kept. The optimizer works in fp32 whatever the model is."""
        import torch

        trained = {name: weight for name, weight in self._model.named_parameters() if name in self._gradients}
        copies = {name: torch.nn.Parameter(weight.detach().float().clone()) for name, weight in trained.items()}
        for name, copy in copies.items():
            copy.grad = self._gradients[name].float()
        torch.optim.AdamW(copies.values(), lr=rate).step()
        return self._value(copies)


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
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    enable = getattr(model, f"{kind}_checkpointing_enable")
    enable(**{f"{kind}_checkpointing_kwargs": {"use_reentrant": False}})
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()


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


_LARGE = 1e4
"""Outputs beyond this are fill values ("never"), which no training moves."""

STATED = "the mean squared distance of the outputs from seeded normal numbers, relative to their own mean square"

_BOX = (0.5, 0.5, 0.2, 0.2)
"""Centre, width and height in shares of the image."""


@dataclass
class Loss:
    """How a batch becomes a number.

    Attributes:
        inputs: What the model is called with, labels included.
        what: In words: the model's own loss and its labels, or the stated one.
        targets: Of the stated loss: by output what it is compared with, and its mean square at the start. `None` for
            the model's own loss.
    """

    inputs: dict[str, Any]
    what: str
    targets: dict[str, tuple[torch.Tensor, float]] | None = None

    def __call__(self, model: Any) -> torch.Tensor:
        """Return the loss, a number in fp32 with its graph; the same for the same weights."""
        import torch

        with _seeded(next(model.parameters()).device):
            output = model(**self.inputs)
        if self.targets is None:
            own: torch.Tensor = output["loss"].float().mean()
            return own
        leaves = flatten_outputs(output)
        terms = []
        for name, (target, square) in self.targets.items():
            used = target.isfinite()
            terms.append((leaves[name].float() - target)[used].square().mean() / (1.0 + square))
        return torch.stack(terms).mean()


def choose_loss(model: Any, inputs: dict[str, torch.Tensor], spec: Any) -> Loss:
    """Choose what a model is trained on.

    Args:
        model: The transformers model in training mode.
        inputs: The inputs of `forward`, on its device.
        spec: The model's registry entry. Only where its task is one of those without a recipe of their own may the
            labels be wrong; there the stated loss is taken if the class refuses them.
    """
    import torch

    with torch.no_grad(), _seeded(next(model.parameters()).device):
        leaves = flatten_outputs(model(**inputs))
    refusal = ""
    labels = _label_inputs(model, inputs, leaves)
    if labels is not None:
        names = ", ".join(labels)
        own = Loss({**inputs, **labels}, f"the model's own, from {names}")
        if task_of(spec).recipe != GENERIC:
            return own
        try:
            with torch.no_grad():
                own(model)
            return own
        except Exception as error:
            refusal = f" (the class refuses {names.split()[-1]}: {type(error).__name__}: {error})".replace("\n", " ")
    targets = _targets(leaves)
    return Loss(dict(inputs), f"{STATED}: {', '.join(targets)}{refusal}", targets)


def _targets(leaves: Tensors) -> dict[str, tuple[torch.Tensor, float]]:
    import torch

    targets = {}
    generator = torch.Generator().manual_seed(_SEED)
    for name, leaf in leaves.items():
        if not leaf.is_floating_point() or not leaf.numel():
            continue
        now = leaf.float()
        target = torch.randn(leaf.shape, generator=generator).to(leaf.device)
        target[~(now.isfinite() & (now.abs() < _LARGE))] = float("nan")  # left out by the loss
        used = now[target.isfinite()]
        if used.numel():
            targets[name] = target, float(used.square().mean())
    return targets


def _label_inputs(model: Any, inputs: Tensors, outputs: Tensors) -> dict[str, Any] | None:
    """Return the further inputs that make a model compute its loss; `None` where no rule fits the class."""
    import torch

    parameters = inspect.signature(model.forward).parameters
    if "labels" in parameters and "logits" in outputs:
        labels = _labels(type(model).__name__, inputs, outputs)
        if labels is not None:
            return {"labels": labels}
    if "return_loss" in parameters:
        return {"return_loss": True}
    if {"start_positions", "end_positions"} <= parameters.keys() and "start_logits" in outputs:
        rows = torch.arange(outputs["start_logits"].shape[0], device=outputs["start_logits"].device)
        return {"start_positions": torch.zeros_like(rows), "end_positions": torch.ones_like(rows)}
    return None


def _labels(architecture: str, inputs: Tensors, outputs: Tensors) -> Any:
    import torch

    logits = outputs["logits"]
    samples, count, device = logits.shape[0], logits.shape[-1], logits.device
    if "pred_boxes" in outputs:
        boxes = torch.tensor([_BOX], device=device, dtype=outputs["pred_boxes"].dtype)
        one = {"class_labels": torch.zeros(1, dtype=torch.long, device=device), "boxes": boxes}
        return [dict(one) for _ in range(samples)]
    if architecture.endswith("ForCTC"):
        # Letters 1 and 2 for every sample: short enough for any number of frames, and not the blank.
        return torch.tensor([[1, 2]] * samples, device=device)
    if "decoder_input_ids" in inputs:
        return inputs["decoder_input_ids"]
    ids = inputs.get("input_ids")
    if ids is not None and logits.ndim == 3 and logits.shape[:2] == ids.shape:
        return ids % count  # of a language model the tokens themselves, else classes of tokens
    if logits.ndim == 2:
        rows = torch.arange(samples, device=device)
        return rows.to(logits.dtype) if count == 1 else rows % count
    return None


def without_dropout(model: Any) -> Any:
    """Switch off what a model drops or masks at random in training mode; in place.

    Whatever is named after dropping (`dropout`, `layerdrop`, `drop_path`) is set to 0, in the modules and in the
    configs, which some classes read while they run. Caches are switched off, too: gradient checkpointing has no use
    for them, and says so in a warning.
    """
    for module in model.modules():
        if is_dropout(module):
            module.p = 0.0
        _zero_drops(module)
    for config in _configs(model):
        _zero_drops(config)
        for name in ("apply_spec_augment", "use_cache"):
            if hasattr(config, name):
                setattr(config, name, False)
    return model


def _zero_drops(owner: Any) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, float) and "drop" in name:
            setattr(owner, name, 0.0)


def _configs(model: Any) -> list[Any]:
    """Return every config in a model once: those of its modules, too, because T5's decoder works on a copy."""
    from transformers import PretrainedConfig

    waiting = [getattr(module, "config", None) for module in model.modules()]
    seen: dict[int, Any] = {}
    while waiting:
        config = waiting.pop()
        if isinstance(config, PretrainedConfig) and id(config) not in seen:
            seen[id(config)] = config
            waiting += vars(config).values()
    return list(seen.values())


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Draw the same random numbers in every such block, and leave the generators outside as they were."""
    import numpy as np
    import torch

    state = np.random.get_state()  # of the generator that transformers draws masks from
    module, row = getattr(torch, device.type, None), torch_device_of(device.type)
    has_state = device.type not in ("cpu", "mps") and hasattr(module, "get_rng_state")
    devices = [device.index or 0] if has_state else []
    seed_devices = getattr(module, row.torch.seed, None) if row.torch else None
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(_SEED)
        if seed_devices is not None:
            seed_devices(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            np.random.set_state(state)
