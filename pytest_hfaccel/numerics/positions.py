"""Which entries of an output belong together: those of real tokens rather than padding, and those of one sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]


ENCODER_MASK, DECODER_MASK = "attention_mask", "decoder_attention_mask"
MASKS = (ENCODER_MASK, DECODER_MASK)
"""The inputs that say which tokens are padding: 1 for a token, 0 for padding, (batch, length)."""

_ENCODER = "encoder_"
_DECODER = "decoder_"


def real_positions(outputs: Tensors, inputs: Tensors) -> dict[str, torch.Tensor]:
    """Leave the positions of padding out of outputs that have one row per token.

    The output for a token that no other attends to has no meaning, and need not be defined: an embedding of all zeros
    gives a router of experts a tie, which devices break differently.

    Args:
        outputs: By dotted leaf name; those of shape (batch, length, ...) are cut to (tokens, ...), others stay.
        inputs: What the model was called with.
    """
    two_sided = any(name.startswith(_DECODER) for name in inputs)
    cut: dict[str, torch.Tensor] = {}
    for name, leaf in outputs.items():
        mask = inputs.get(DECODER_MASK if two_sided and not name.startswith(_ENCODER) else ENCODER_MASK)
        if mask is not None and mask.ndim == 2 and leaf.shape[:2] == mask.shape:  # a row per token
            leaf = leaf[mask.bool()]
        cut[name] = leaf
    return cut


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
