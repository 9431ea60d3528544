"""Labels for a model's own loss, made from what it takes and what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]

_BOX = (0.5, 0.5, 0.2, 0.2)
"""Centre, width and height in shares of the image."""


def label_inputs(model: Any, inputs: Tensors, outputs: Tensors) -> dict[str, Any] | None:
    """Return the further inputs that make a model compute its loss; `None` where no rule fits the class.

    Args:
        model: The transformers model.
        inputs: The inputs of `forward` without labels.
        outputs: What it returned for them, by leaf name.
    """
    takes = inspect.signature(model.forward).parameters
    logits = outputs.get("logits")
    if "labels" in takes and logits is not None:
        labels = _labels(type(model).__name__, inputs, outputs, logits)
        if labels is not None:
            return {"labels": labels}
    if "return_loss" in takes:
        return {"return_loss": True}
    if {"start_positions", "end_positions"} <= takes.keys() and "start_logits" in outputs:
        rows = torch.arange(outputs["start_logits"].shape[0], device=outputs["start_logits"].device)
        return {"start_positions": torch.zeros_like(rows), "end_positions": torch.ones_like(rows)}
    return None


def _labels(architecture: str, inputs: Tensors, outputs: Tensors, logits: torch.Tensor) -> Any:
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
