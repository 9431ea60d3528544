"""One sample out of a batch: its inputs, and its share of the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def row_of_inputs(inputs: dict[str, torch.Tensor], row: int, batch: int) -> dict[str, torch.Tensor]:
    """Return the inputs of one sample as a batch of one.

    An input whose first axis is a multiple of the batch (several images per sample) gives that sample's share; an
    input without a batch axis is passed whole.
    """
    return {name: _share(tensor, 0, row, batch) for name, tensor in inputs.items()}


def row_of_output(leaf: torch.Tensor, alone: torch.Tensor, row: int, batch: int) -> torch.Tensor:
    """Return what a batch's output says about one sample, in the shape of that sample's output alone.

    Every axis on which the batch has `batch` times as many entries is a batch axis: CLIP's `logits_per_image` has two.

    Raises:
        ValueError: Some other axis differs, so that the two outputs cannot be compared.
    """
    if leaf.ndim != alone.ndim:
        raise ValueError(f"shape {tuple(alone.shape)} alone, {tuple(leaf.shape)} in the batch")
    for axis, (many, one) in enumerate(zip(leaf.shape, alone.shape, strict=True)):
        if many == one:
            continue
        if many != one * batch:
            raise ValueError(f"shape {tuple(alone.shape)} alone, {tuple(leaf.shape)} in the batch")
        leaf = _share(leaf, axis, row, batch)
    return leaf


def _share(tensor: torch.Tensor, axis: int, row: int, batch: int) -> torch.Tensor:
    if tensor.ndim <= axis or tensor.shape[axis] % batch or not tensor.shape[axis]:
        return tensor
    size = tensor.shape[axis] // batch
    return tensor.narrow(axis, row * size, size)
