"""Weight-only int8 on torch devices: torchao rounds the weights of linear layers to 8 bits.

Activations, and all weights that are not those of linear layers (embeddings, norms, convolutions), stay in fp32. What
a model really multiplies with is seen while it runs (`product_weights`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pytest_hfaccel.backends.base import Placement, WeightChange
from pytest_hfaccel.backends.torch.model import TorchModel
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream import TORCHAO, errors_only
from pytest_hfaccel.upstream.torch import grouped_product

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
        grouped_product(),
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


Make = Callable[[WeightChange | None], TorchModel]


def require_torchao(device: Device) -> None:
    """Make sure that weights can be rounded here.

    Raises:
        BackendUnavailable: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise BackendUnavailable(
            f"{device}: int8 needs torchao, which rounds the weights, and it is not installed.",
            stage="load",
            hint="pip install 'pytest-hfaccel[int8]' installs it. OpenVINO devices run int8 with NNCF instead.",
        )


def quantize(model: Any) -> Any:
    """Round the weights of a model's linear layers to signed 8 bits, with one scale per output channel; in place.

    GPT-2's `Conv1D`, a linear layer with its weight transposed, is replaced by a linear layer first.
    """
    with errors_only(*TORCHAO):
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__ == "Conv1D" and hasattr(child, "nf"):
                    setattr(parent, name, _as_linear(child))
        quantize_(model, Int8WeightOnlyConfig())
    return model


class Int8Model(TorchModel):
    """A loaded model with 8-bit weights.

    Args:
        model: The transformers model, its weights rounded.
        placement: Where it is.
        nbytes: Bytes it holds.
        timings: Seconds per stage of loading.
        make: Makes the model anew, with a weight changed before it is rounded.
    """

    def __init__(self, model: Any, placement: Placement, nbytes: int, timings: dict[str, float], make: Make) -> None:
        super().__init__(model, torch.float32, placement, nbytes, timings)
        self._make = make

    @contextlib.contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong: another one beside this one.

        A change of a rounded weight would itself be rounded, to nothing or to the next step.
        """
        wrong = self._make(change)
        try:
            yield wrong
        finally:
            wrong.close()


def _as_linear(layer: Any) -> torch.nn.Linear:
    with torch.device("meta"):
        linear = torch.nn.Linear(layer.nx, layer.nf)
    linear.weight = torch.nn.Parameter(layer.weight.detach().T.contiguous(), requires_grad=False)
    linear.bias = layer.bias
    return linear
