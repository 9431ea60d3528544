"""What an operator reads and writes, in bytes and in floating-point numbers.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

_LOOK_UP = frozenset({"embedding", "index", "index_select", "gather"})
"""Read, of their first argument, only the numbers they return."""

_OVERWRITE = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_"})
"""Do not read the tensor they write."""

_SCATTER = {"index_put_": -1, "index_put": -1, "index_add_": -1, "scatter_": -1, "scatter_add_": -1}
"""Write, of their first argument, only what they are given: operator -> position of that tensor."""

_ALLOCATE = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
"""Write nothing into what they return."""

ALIASES = frozenset({"_unsafe_view", "_reshape_alias", "lift_fresh"})
"""Return their argument's memory although their signatures do not say so."""


@dataclass(frozen=True)
class Amount:
    """Bytes of tensors, and how many floating-point numbers are among what they hold."""

    nbytes: int
    floats: int


def amount(tensors: Iterable[torch.Tensor]) -> Amount:
    """Return what tensors hold, each counted once, and broadcast axes once."""
    nbytes = floats = 0
    for tensor in {id(tensor): tensor for tensor in tensors}.values():
        numbers = distinct(tensor)
        nbytes += numbers * tensor.element_size()
        floats += numbers if tensor.is_floating_point() else 0
    return Amount(nbytes, floats)


def distinct(tensor: torch.Tensor) -> int:
    """Return how many numbers of a tensor have a place of their own: `expand` repeats without memory."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= int(size) if stride or not size else 1
    return count


def read(name: str, arguments: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> Amount:
    """Return what an operator reads."""
    if name in _LOOK_UP:
        return amount([*results[:1], *arguments[1:]])
    if name in _SCATTER or name in _OVERWRITE:
        return amount(arguments[1:])
    return amount(() if name in _ALLOCATE else arguments)


def written(name: str, arguments: Sequence[torch.Tensor], changed: Sequence[torch.Tensor]) -> Amount:
    """Return what an operator writes.

    Args:
        name: The operator.
        arguments: Its tensor arguments.
        changed: Its results, or what it changed in place where it returns nothing.
    """
    if name in _SCATTER:
        return amount([arguments[_SCATTER[name]]])
    return amount(() if name in _ALLOCATE else changed)
