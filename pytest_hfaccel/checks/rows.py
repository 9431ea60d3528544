"""One sample out of a batch: its inputs, and its share of the outputs."""

from __future__ import annotations

from collections.abc import Iterable
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


def name_in_batch(name: str, alone: Iterable[str], together: Iterable[str], row: int, batch: int) -> str:
    """Return what an output of one sample alone is called within the batch.

    Some models return a list with an entry per image: the first one of a sample alone is a later one in the batch.

    Args:
        name: Dotted name of the output of the sample alone, e.g. `image_hidden_states.0`.
        alone: The names of all outputs of the sample alone.
        together: The names of all outputs of the batch.
        row: The sample.
        batch: Number of samples in the batch.
    """
    prefix_alone, prefix_together = "", ""
    for part in name.split("."):
        entries, all_entries = _entries(prefix_alone, alone), _entries(prefix_together, together)
        shifted = part
        if part.isdigit() and len(all_entries) == batch * len(entries):
            shifted = str(row * len(entries) + int(part))
        prefix_alone, prefix_together = f"{prefix_alone}{part}.", f"{prefix_together}{shifted}."
    return prefix_together.rstrip(".")


def _entries(prefix: str, names: Iterable[str]) -> set[str]:
    return {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}


def _share(tensor: torch.Tensor, axis: int, row: int, batch: int) -> torch.Tensor:
    if tensor.ndim <= axis or tensor.shape[axis] % batch or not tensor.shape[axis]:
        return tensor
    size = tensor.shape[axis] // batch
    return tensor.narrow(axis, row * size, size)
