"""Floating-point operations of one operator: torch's own table, and the operators it lacks or miscounts.

Imports torch: import this file late.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import flop_registry


def flops_of(name: str, packet: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Return the operations of an execution; 0 for what torch does not count, such as additions of tensors.

    Args:
        name: The operator without namespace and overload.
        packet: torch's object for it, the key of its table.
        args: Its arguments.
        kwargs: Its keyword arguments.
        out: Its result.
    """
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


def _complex_fft(args: Any, _out: Any) -> int:
    return _fft(args[0], args[1])


def _fft_to_complex(args: Any, _out: Any) -> int:
    return _fft(args[0], args[1]) // 2


def _fft_to_real(args: Any, out: Any) -> int:
    return _fft(out, args[1]) // 2


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
    "_fft_c2c": _complex_fft,
    "_fft_r2c": _fft_to_complex,
    "_fft_c2r": _fft_to_real,
}
