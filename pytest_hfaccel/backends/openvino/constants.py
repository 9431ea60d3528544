"""Making one weight wrong inside a converted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset14 as ops

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import WeightChange


class NotFound(Exception):
    """The weight is in no constant of the converted model by itself: the converter merged it with something."""


def with_changed_weight(program: ov.Model, weights: dict[str, Any], change: WeightChange) -> ov.Model:
    """Return a copy of a converted model with one weight changed.

    Args:
        program: The converted model; it is left as it is.
        weights: The transformers model's parameters and buffers by name (torch tensors on the CPU).
        change: Which weight to change.

    Raises:
        NotFound: No constant, or no single parameter, has these values.
    """
    original = weights[change.parameter].detach().numpy()
    if _is_ambiguous(weights, change.parameter):
        raise NotFound(f"another weight has the same values as {change.parameter}")
    place = np.unravel_index(change.index, original.shape)
    changed = original.copy()
    changed[place] += change.delta
    copy = program.clone()
    hits = 0
    for node in [op for op in copy.get_ordered_ops() if op.get_type_name() == "Constant"]:
        new = _replacement(node, original, changed)
        if new is not None:
            constant = ops.constant(new, dtype=node.get_element_type())
            constant.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(constant.output(0))
            hits += 1
    if not hits:
        raise NotFound(f"no constant has the values of {change.parameter}")
    copy.validate_nodes_and_infer_types()
    return copy


def _replacement(node: Any, original: np.ndarray[Any, Any], changed: np.ndarray[Any, Any]) -> Any:
    """Return the constant's new values if it holds the weight, as it is, transposed or in another shape."""
    if node.get_byte_size() != original.nbytes or node.get_element_type() != ov.Type.f32:
        return None
    found = node.data
    for old, new in ((original, changed), (original.T, changed.T)):
        if np.array_equal(found.ravel(), old.ravel()):
            return new.reshape(found.shape)
    return None


def _is_ambiguous(weights: dict[str, Any], name: str) -> bool:
    wanted = weights[name]
    return any(
        other.data_ptr() != wanted.data_ptr() and other.shape == wanted.shape and bool((other == wanted).all())
        for key, other in weights.items()
        if key != name
    )
