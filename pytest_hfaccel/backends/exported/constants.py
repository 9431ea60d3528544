"""A weight of the transformers model among the constants of a converted one, found by its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pytest_hfaccel.backends.exported import ConstantMerged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_hfaccel.backends.base import WeightChange

    Array = NDArray[np.float32]

Constant = TypeVar("Constant")

_ROUNDING = 1e-6
"""Relative difference that one fp32 multiplication can make, with room."""


def replacements_for(
    change: WeightChange,
    weights: Mapping[str, Any],
    constants: Iterable[Constant],
    values_of: Callable[[Constant], Array],
) -> list[tuple[Constant, Array]]:
    """Return the constants that hold a weight, each with its values after a change.

    Args:
        change: Which weight to change.
        weights: The transformers model's parameters and buffers by name (torch tensors on the CPU).
        constants: The constants in fp32 of a converted model.
        values_of: Returns the values of one of them.

    Raises:
        ConstantMerged: No constant, or no single parameter, has these values.
    """
    original = weights[change.parameter].detach().numpy()
    if _is_ambiguous(weights, change.parameter):
        raise ConstantMerged(f"another weight has the same values as {change.parameter}")
    changed = original.copy()
    changed[np.unravel_index(change.index, original.shape)] += change.delta
    found = _replacements(original, changed, constants, values_of)
    if not found:
        raise ConstantMerged(f"no constant has the values of {change.parameter}")
    return found


def holds_weight(
    name: str, weights: Mapping[str, Any], constants: Iterable[Constant], values_of: Callable[[Constant], Array]
) -> bool:
    """Whether `replacements_for` finds a weight; the arguments are as there."""
    original = weights[name].detach().numpy()
    return not _is_ambiguous(weights, name) and bool(_replacements(original, original, constants, values_of))


def _replacements(
    original: Array, changed: Array, constants: Iterable[Constant], values_of: Callable[[Constant], Array]
) -> list[tuple[Constant, Array]]:
    candidates = [(constant, values_of(constant)) for constant in constants]
    candidates = [(constant, values) for constant, values in candidates if values.size == original.size]
    for new_values in (_equal, _proportional):
        replacements = [(constant, new_values(values, original, changed)) for constant, values in candidates]
        found = [(constant, values) for constant, values in replacements if values is not None]
        if found:
            return found
    return []


def _equal(values: Array, original: Array, changed: Array) -> Array | None:
    """Return the new values of a constant that is the weight: as it is, transposed or in another shape."""
    for old, new in ((original, changed), (original.T, changed.T)):
        if np.array_equal(values.ravel(), old.ravel()):
            return new.reshape(values.shape)
    return None


def _proportional(values: Array, original: Array, changed: Array) -> Array | None:
    """Return the new values of a constant that is the weight times a number the converter merged into it."""
    for old, new in ((original, changed), (original.T, changed.T)):
        largest = int(np.abs(old).argmax())
        if old.ravel()[largest] == 0 or np.ptp(old) == 0:
            return None
        scale = values.ravel()[largest] / old.ravel()[largest]
        # Zeros are any weight times 0, and say nothing of which.
        if scale != 0 and np.allclose(values.ravel(), scale * old.ravel(), rtol=_ROUNDING, atol=0):
            scaled: Array = (scale * new).reshape(values.shape)
            return scaled
    return None


def _is_ambiguous(weights: Mapping[str, Any], name: str) -> bool:
    wanted = weights[name]
    return any(
        other.data_ptr() != wanted.data_ptr() and other.shape == wanted.shape and bool((other == wanted).all())
        for key, other in weights.items()
        if key != name
    )
