"""Whatever else a model's `forward` demands, by the parameter's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, TOKENS, Draft
from pytest_hfaccel.checkpoints.inputs.generic.facts import number

if TYPE_CHECKING:
    import torch

_OTHER_TOKENS = 8
_STEPS = 32


def fill(draft: Draft) -> None:
    """Add what has no default and is not there."""
    for name in draft.parameters:
        if draft.demands(name) and name not in draft.inputs:
            guessed = guess(draft, name)
            if guessed is not None:
                draft.inputs[name] = guessed


def guess(draft: Draft, name: str) -> torch.Tensor | None:
    """Return a value for a parameter, or `None` where its name does not tell what it is."""
    steps = number([draft.config], "context_length", "seq_len") or _STEPS
    if name == "past_values":
        channels = number([draft.config], "num_input_channels", "input_size") or 1
        return draft.noise(BATCH, steps, channels)
    if name == "past_values_padding":
        return draft.noise(BATCH, steps) * 0
    if name == "freq":
        return draft.integers(0, 1, BATCH, 1)
    if name.endswith("input_ids"):
        return draft.ids(BATCH, _OTHER_TOKENS)
    if name.endswith("attention_mask"):
        return draft.ones(BATCH, _OTHER_TOKENS)
    return draft.ids(BATCH, TOKENS) if name == "inputs" else None
