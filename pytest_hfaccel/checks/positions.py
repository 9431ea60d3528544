"""The positions of an output that mean something: not those of padding."""

from __future__ import annotations

from collections.abc import Mapping
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

    What a token that nobody attends to becomes is nobody's business, and it need not be defined: an embedding of all
    zeros gives a router of experts a tie, which every device may break as it likes.

    Args:
        outputs: By dotted leaf name; those of shape (batch, length, ...) are cut to (tokens, ...), others are kept.
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
