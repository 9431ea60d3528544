"""Flattening of model outputs: from nested `ModelOutput`s to tensors by dotted leaf name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CACHES = frozenset({"past_key_values", "cache_params", "mems", "past_buckets_states", "state", "states"})
"""Output fields that hold what a model remembers between calls; they are not results."""


def flatten_outputs(output: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a model output by dotted leaf name, e.g. `logits`, `hidden_states.0`.

    Args:
        output: A `ModelOutput`, mapping, sequence or tensor, nested as deep as it likes. A bare tensor is named
            `output`. Caches, numbers and `None` are left out.
    """
    return dict(_leaves(output, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield name or "output", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in CACHES:
                yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}" if name else str(index))
