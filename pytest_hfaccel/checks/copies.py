"""A model of one's own: the same checkpoint on the same device, loaded once more, to do to it what one likes.

The leased model belongs to the pool and to the cell's other checks. A check that trains, or that swaps parts of the
model's code, works on a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.core.errors import LoadError

if TYPE_CHECKING:
    import torch


def own_copy(context: CheckContext, dtype: str = "") -> Any:
    """Load the cell's checkpoint once more, on the leased model's device.

    Args:
        context: The check's context.
        dtype: The precision; that of the cell when not given.

    Raises:
        LoadError: The copy shares memory with the leased model, so that what is done to it would be done to both.
    """
    leased = context.loaded.pipeline_model()
    device = next(leased.parameters()).device
    copy = context.source.torch_model(dtype or context.cell.dtype, str(device))
    shared = _storages(copy) & _storages(leased)
    if shared:
        raise LoadError(f"{len(shared)} tensors of the copy lie in the memory of the leased model", stage="load")
    return copy


def placed(inputs: Mapping[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return inputs on a model's device, floating-point ones in its dtype."""
    parameter = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    device, dtype = parameter.device, getattr(model, "dtype", parameter.dtype)
    return {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in inputs.items()
    }


def _storages(model: Any) -> set[int]:
    tensors = (*model.parameters(), *model.buffers())
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
