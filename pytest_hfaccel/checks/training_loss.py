"""What the check `training` trains on: the model's own loss where there are labels for it, else one on its outputs.

The labels are made from what the model takes and returns. What is random in training mode is switched off or seeded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.core.tasks import GENERIC, task_of
from pytest_hfaccel.upstream.torch import is_dropout

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

_SEED = 0
RANDOMNESS = "dropout, layer drop and SpecAugment are off; what chance remains is seeded"

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
        with _seeded(device):
            output = model(**self.inputs)
        if self.own:
            return output["loss"].float().mean()
        return self._distance(flatten_outputs(output))

    def _distance(self, leaves: Tensors) -> torch.Tensor:
        import torch

        terms = []
        for name, (target, square) in self.targets.items():
            used = target.isfinite()
            difference = (leaves[name].float() - target)[used]
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
    import torch

    device = next(model.parameters()).device
    with torch.no_grad(), _seeded(device):
        leaves = flatten_outputs(model(**inputs))
    labels = _label_inputs(model, inputs, leaves)
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
    import torch

    try:
        with torch.no_grad():
            loss(model)
    except Exception as error:
        return f" (the class refuses {loss.what.rpartition(' ')[2]}: {type(error).__name__}: {error})".replace(
            "\n", " "
        )
    return ""


def _stated(inputs: dict[str, torch.Tensor], leaves: Tensors, refusal: str) -> Loss:
    import torch

    targets = {}
    generator = torch.Generator().manual_seed(0)
    for name, leaf in leaves.items():
        if not leaf.is_floating_point() or not leaf.numel():
            continue
        now = leaf.float()
        target = torch.randn(leaf.shape, generator=generator).to(leaf.device)
        target[~(now.isfinite() & (now.abs() < _LARGE))] = float("nan")  # left out by the loss
        used = now[target.isfinite()]
        if used.numel():
            targets[name] = target, float(used.square().mean())
    return Loss(dict(inputs), f"{STATED}: {', '.join(targets)}{refusal}", own=False, targets=targets)


def _label_inputs(model: Any, inputs: Tensors, outputs: Tensors) -> dict[str, Any] | None:
    """Return the further inputs that make a model compute its loss; `None` where no rule fits the class."""
    import torch

    parameters = inspect.signature(model.forward).parameters
    logits = outputs.get("logits")
    if "labels" in parameters and logits is not None:
        labels = _labels(type(model).__name__, inputs, outputs, logits)
        if labels is not None:
            return {"labels": labels}
    if "return_loss" in parameters:
        return {"return_loss": True}
    if {"start_positions", "end_positions"} <= parameters.keys() and "start_logits" in outputs:
        rows = torch.arange(outputs["start_logits"].shape[0], device=outputs["start_logits"].device)
        return {"start_positions": torch.zeros_like(rows), "end_positions": torch.ones_like(rows)}
    return None


def _labels(architecture: str, inputs: Tensors, outputs: Tensors, logits: torch.Tensor) -> Any:
    import torch

    count, device = logits.shape[-1], logits.device
    if "pred_boxes" in outputs:
        boxes = torch.tensor([_BOX], device=device, dtype=outputs["pred_boxes"].dtype)
        one = {"class_labels": torch.zeros(1, dtype=torch.long, device=device), "boxes": boxes}
        return [dict(one) for _ in range(logits.shape[0])]
    if architecture.endswith("ForCTC"):
        # Letters 1 and 2 for every sample: short enough for any number of frames, and not the blank.
        return torch.tensor([[1, 2]] * logits.shape[0], device=device)
    if "decoder_input_ids" in inputs:
        return inputs["decoder_input_ids"]
    ids = inputs.get("input_ids")
    if ids is not None and logits.ndim == 3 and logits.shape[:2] == ids.shape:
        return ids % count  # of a language model the tokens themselves, else classes of tokens
    if logits.ndim == 2:
        rows = torch.arange(logits.shape[0], device=device)
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
        for name, value in (("apply_spec_augment", False), ("use_cache", False)):
            if hasattr(config, name):
                setattr(config, name, value)
    return model


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Draw the same random numbers in every such block, and leave the generators outside as they were."""
    import numpy as np
    import torch

    state = np.random.get_state()  # of the generator that transformers draws masks from
    devices = [device.index or 0] if device.type in ("cuda", "xpu") else []
    kind = device.type if devices else "cuda"
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(_SEED)
        np.random.seed(_SEED)
        try:
            yield
        finally:
            np.random.set_state(state)


def _zero_drops(owner: Any) -> None:
    for name, value in list(vars(owner).items()):
        if isinstance(value, float) and "drop" in name:
            setattr(owner, name, 0.0)


def _configs(model: Any) -> Iterator[Any]:
    """Give every config in a model once: those of its modules, too, because T5's decoder works on a copy."""
    from transformers import PretrainedConfig

    waiting = [
        module.config for module in model.modules() if isinstance(getattr(module, "config", None), PretrainedConfig)
    ]
    seen: set[int] = set()
    while waiting:
        config = waiting.pop()
        if id(config) in seen:
            continue
        seen.add(id(config))
        yield config
        waiting += [value for value in vars(config).values() if isinstance(value, PretrainedConfig)]
