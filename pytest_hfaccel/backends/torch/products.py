"""The weights that a torch model really multiplies with, seen while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_PRODUCTS = frozenset(
    {
        functional.linear,
        functional.bilinear,
        functional.multi_head_attention_forward,
        torch.matmul,
        torch.mm,
        torch.bmm,
        torch.addmm,
        torch.addbmm,
        torch.baddbmm,
        torch.einsum,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.Tensor.__rmatmul__,
        torch.Tensor.mm,
        torch.Tensor.bmm,
        torch.Tensor.addmm,
        torch.Tensor.baddbmm,
        getattr(torch, "_grouped_mm", None),
        getattr(functional, "grouped_mm", None),
    }
    - {None}
)
"""torch's products of matrices; convolutions are not among them, because nothing rounds their weights."""


class ProductWeights(TorchFunctionMode):  # type: ignore[misc]
    """Notes which of a model's parameters are factors of matrix products while it is active.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._plain = {
            parameter.untyped_storage().data_ptr(): parameter
            for parameter in model.parameters()
            if not is_eight_bit(parameter)
        }
        self._seen: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the factors; run everything as it is."""
        if func in _PRODUCTS:
            for tensor in _tensors((*args, *(kwargs or {}).values())):
                parameter = tensor if is_eight_bit(tensor) else self._parameter_of(tensor)
                if parameter is not None and sum(size > 1 for size in parameter.shape) > 1:
                    self._seen[id(parameter)] = parameter
        return func(*args, **(kwargs or {}))

    def counts(self) -> dict[str, int]:
        """Return the elements of the weights seen, by type: `i8` for 8 bits, else torch's name."""
        found: dict[str, int] = {}
        for parameter in self._seen.values():
            name = "i8" if is_eight_bit(parameter) else str(parameter.dtype).removeprefix("torch.")
            found[name] = found.get(name, 0) + parameter.numel()
        return found

    def _parameter_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The parameter that a tensor is, or is a view of."""
        try:
            return self._plain.get(tensor.untyped_storage().data_ptr())
        except (NotImplementedError, RuntimeError):  # a subclass of torch.Tensor without a storage of its own
            return None


def product_weights(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Run a model once and count the elements of the weights in its matrix products by type."""
    with torch.inference_mode(), ProductWeights(model) as seen:
        model(**inputs)
    counts: dict[str, int] = seen.counts()
    return counts


def is_eight_bit(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of torchao's that keeps its values in 8 bits."""
    return bool(getattr(getattr(tensor, "qdata", None), "dtype", None) == torch.int8)


def dtype_of_products(counts: Mapping[str, int]) -> str:
    """Return `int8` where every weight of a matrix product has 8 bits, `mixed` where some have, else what they are."""
    if set(counts) == {"i8"}:
        return "int8"
    return "mixed" if "i8" in counts else "/".join(sorted(counts)) or "no product of matrices"


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
