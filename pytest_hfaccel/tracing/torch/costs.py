"""What one execution of an operator costs: floating-point operations, and what it reads and writes.

Imports torch: import this file late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from pytest_hfaccel.upstream.torch import packet_and_arguments

_GROUPS = {"convolution": 8, "convolution_backward": 9}
"""Operator -> the position of the number of groups among its arguments."""

_BOOKKEEPING = frozenset({"prim", "profiler"})
"""Namespaces of operators that only Python and the profiler need: they ask for a tensor's device, or mark a moment."""


@dataclass(frozen=True)
class Kind:
    """An operator as torch declares it: `packet` stands for all its overloads.

    Views return their argument's memory; bookkeeping does nothing to tensors.
    """

    name: str
    packet: Any = field(compare=False)
    is_view: bool
    is_bookkeeping: bool
    changed: tuple[tuple[str, int], ...]
    """Names and positions of the arguments it changes in place."""

    def changed_of(self, args: Any, kwargs: Any) -> list[Any]:
        """Return the arguments of an execution that it changed in place."""
        return [args[index] if index < len(args) else kwargs.get(name) for name, index in self.changed]

    def groups_of(self, args: Any) -> int:
        """Return the groups of a convolution; 1 for all else."""
        return int(args[_GROUPS[self.name]]) if self.name in _GROUPS else 1


@cache
def kind_of(func: Any) -> Kind:
    """Return the kind of an operator, as `__torch_dispatch__` gets it."""
    packet, arguments = packet_and_arguments(func)
    name = str(packet.__name__)
    changed = [(one.name, index) for index, one in enumerate(arguments) if one.alias_info and one.alias_info.is_write]
    return Kind(name, packet, bool(func.is_view) or name in ALIASES, func.namespace in _BOOKKEEPING, tuple(changed))


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
    """Return what an operator writes."""
    if name in _SCATTER:
        return amount([arguments[_SCATTER[name]]])
    return amount(() if name in _ALLOCATE else changed)


def flops_of(name: str, packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Return the operations of an execution; 0 for what torch does not count, such as additions of tensors."""
    own = _OWN.get(name)
    if own is not None:
        return int(own(args, out))
    formula = flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


def _attention(args: Any, _out: Any) -> int:
    """The two matrix products of attention, as torch counts them for its other fused kernels."""
    return 2 * _pairs(*args[:2]) * int(args[0].shape[-1] + args[2].shape[-1])


def _attention_backward(args: Any, _out: Any) -> int:
    """Scores again, and the gradients of values, probabilities, queries and keys: five products, as torch counts."""
    _, query, key, value = args[:4]
    return 2 * _pairs(query, key) * int(3 * query.shape[-1] + 2 * value.shape[-1])


def _pairs(query: Any, key: Any) -> int:
    batch, heads, queries, _ = query.shape
    return int(batch * heads * queries * key.shape[2])


def _convolution_backward(args: Any, _out: Any) -> int:
    """As much as the forward pass for each of the gradients of input and weight.

    torch's own formula multiplies that of the weight by the number of groups, hundreds in depthwise convolutions.
    """
    gradient, signal, weight = args[:3]
    transposed, wanted = args[7], args[10]
    places = (signal if transposed else gradient).shape
    return int(2 * places[0] * math.prod(places[2:]) * weight.numel() * sum(wanted[:2]))


def _grouped_product(args: Any, _out: Any) -> int:
    """Matrix products of experts: each row of the first matrix meets the matrix of its own group."""
    rows, matrices = args[:2]
    groups = rows.shape[0] if rows.dim() == 3 and matrices.dim() == 2 else 1
    return int(2 * rows.numel() * matrices.shape[-1] // groups)


def _fft(signal: Any, axes: Any) -> int:
    """5 n log2 n per complex transform of n points, half for real ones: FFTW's convention (fftw.org/speed)."""
    points = math.prod(int(signal.shape[axis]) for axis in axes)
    return int(5 * signal.numel() * math.log2(max(2, points)))


_OWN: dict[str, Callable[[Any, Any], int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "convolution_backward": _convolution_backward,
    "_grouped_mm": _grouped_product,
    "grouped_mm_fallback": _grouped_product,
    "_fft_c2c": lambda args, _: _fft(args[0], args[1]),
    "_fft_r2c": lambda args, _: _fft(args[0], args[1]) // 2,
    "_fft_c2r": lambda args, out: _fft(out, args[1]) // 2,
}
