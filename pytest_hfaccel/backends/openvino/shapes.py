"""What two calls must have in common to run on the same converted graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

TOKENS = frozenset(
    {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "mm_token_type_ids",
        "position_ids",
        "decoder_input_ids",
        "decoder_attention_mask",
    }
)
"""Inputs whose second axis counts tokens."""

SAMPLES = frozenset({"input_values"})
"""Inputs whose second axis counts audio samples."""

FOLDED = frozenset({"image_sizes"})
"""Inputs that transformers' exporter makes constants of the graph: their values, not their shapes, decide."""

GEOMETRY = frozenset(
    {
        "feature_lens",
        "grid_thw",
        "grid_thws",
        "image_grid_hws",
        "image_grid_thw",
        "image_merge_sizes",
        "merge_sizes",
        "target_sizes",
        "video_grid_thw",
        "video_merge_sizes",
    }
)
"""Inputs that say how large images and sounds are. What is computed of their values may be a constant of the graph."""

PIXELS = frozenset({"input_features", "pixel_values", "pixel_values_videos"})
"""Inputs that a language model gets in the place of tokens."""


def varying_axes(name: str, tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the axes of an input that vary between calls: the batch, and the length of text and sound."""
    if name in FOLDED or tensor.ndim == 0:
        return ()
    return (0, 1) if name in TOKENS | SAMPLES and tensor.ndim == 2 else (0,)


def signature(inputs: Tensors, *, exact: bool, fixed_batch: bool) -> str:
    """Return a text that is equal for two calls that can share a graph.

    Args:
        inputs: The inputs of a call.
        exact: No axis may vary: the device takes static shapes only.
        fixed_batch: The batch may not vary: the model could not be traced for several batch sizes.
    """
    return json.dumps({name: _describe(name, inputs[name], exact, fixed_batch) for name in sorted(inputs)})


def _describe(name: str, tensor: torch.Tensor, exact: bool, fixed_batch: bool) -> dict[str, Any]:
    varying = () if exact else varying_axes(name, tensor)
    if fixed_batch:
        varying = tuple(axis for axis in varying if axis != 0)
    sizes = ["?" if axis in varying else size for axis, size in enumerate(tensor.shape)]
    described: dict[str, Any] = {"dtype": str(tensor.dtype), "sizes": sizes}
    if name in FOLDED | GEOMETRY:
        described["values"] = hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()[:16]
    return described


def widened(inputs: Tensors, *, fixed_batch: bool) -> dict[str, torch.Tensor]:
    """Return example inputs to trace with, at least 2 long on every varying axis.

    `torch.export` takes a length of 1 for a constant, so a lone sample or token is repeated.
    """
    import torch

    wide = dict(inputs)
    if not fixed_batch and _batches(inputs) == {1}:
        wide = {name: tensor if name in FOLDED else torch.cat([tensor, tensor]) for name, tensor in wide.items()}
    for name, tensor in wide.items():
        if 1 in varying_axes(name, tensor) and tensor.shape[1] == 1:
            wide[name] = torch.cat([tensor, tensor], dim=1)
    return wide


def same_batch(inputs: Tensors, others: Mapping[str, Iterable[int]]) -> bool:
    """Whether every input has as many rows as the input of the same name in `others`, given by shape."""
    return all(tuple(others[name])[:1] == tuple(tensor.shape[:1]) for name, tensor in inputs.items() if name in others)


def _batches(inputs: Tensors) -> set[int]:
    return {tensor.shape[0] for name, tensor in inputs.items() if tensor.ndim and name not in FOLDED}
