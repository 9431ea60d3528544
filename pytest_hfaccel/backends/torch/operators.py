"""Which operators of a model ran on the CPU although the model is on an accelerator.

That happens in two ways: the model's code computes with tensors that it makes on the CPU, or PyTorch moves the tensors
of an operator that the device lacks to the CPU and back (the fallback of MPS and of vendors' devices). The second is
invisible from outside: the operator takes tensors of the device and returns some. So each operator is called a level
below the log, with the log still active, where the copies of the fallback show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_hfaccel.upstream.torch import call_kernel

_COPIES = frozenset(
    f"aten::{name}"
    for name in (
        *("to", "cpu", "_to_copy", "_to_cpu", "copy_", "_copy_from", "_copy_from_and_resize", "contiguous"),
        *("item", "is_nonzero", "_local_scalar_dense"),
    )
)
"""What moves numbers between memories; the operator that calls it is the one that fell back."""

_PRODUCTS = (
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "linear", "matmul", "einsum", "scaled_dot_product"),
    *("convolution", "conv1d", "conv2d", "conv3d", "conv_transpose"),
)
"""Parts of the names of operators that do most of a model's work."""


def _is_product(name: str) -> bool:
    return any(part in name for part in _PRODUCTS)


@dataclass
class Operators:
    """The operators of one forward pass.

    Attributes:
        on_device: Number of those that ran on the device.
        fallback: Those that PyTorch ran on the CPU for lack of a kernel of the device, by name.
        on_cpu: Those that the model's code ran on the CPU, by name.
    """

    on_device: int = 0
    fallback: Counter[str] = field(default_factory=Counter)
    on_cpu: Counter[str] = field(default_factory=Counter)

    def products_on_cpu(self) -> dict[str, int]:
        """Return the products of matrices among those that ran on the CPU."""
        everything = self.fallback + self.on_cpu
        return {name: count for name, count in everything.items() if _is_product(name)}

    def details(self, device: str) -> dict[str, Any]:
        """Return what stands in `Placement.details`.

        Args:
            device: Our id of the device.
        """
        cpu = self.fallback.total() + self.on_cpu.total()
        return {
            "nodes": {device: self.on_device, **({"cpu": cpu} if cpu else {})},
            "cpu_fallback": {"nodes": self.fallback.total(), "operators": dict(self.fallback.most_common())},
            "model_on_cpu": dict(self.on_cpu.most_common()),
        }


class _OperatorLog(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self, torch_type: str) -> None:
        super().__init__()
        self.operators = Operators()
        self._type = torch_type
        self._running: list[_Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # the type of tensor is asked next, with this log active for what it calls
        call = _Call(func._schema.name, bool(self._running))
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [tensor for tensor in taken if tensor.device.type == self._type]
        self._running.append(call)
        try:
            if here:
                with self:
                    output = call_kernel(func, here[0], args, kwargs)
            else:
                output = func(*args, **kwargs)
        finally:
            self._running.pop()
        made = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        self._note(call, bool(here), {tensor.device.type for tensor in (*taken, *made)})
        return output

    def _note(self, call: _Call, is_here: bool, types: set[str]) -> None:
        if call.name in _COPIES:
            if is_here and "cpu" in types:
                caller = next((each for each in reversed(self._running) if each.name not in _COPIES), None)
                if caller is not None:
                    caller.has_moved = True
        elif call.has_moved:
            self.operators.fallback[call.name] += 1
        elif not call.is_inner and self._type in types:
            self.operators.on_device += 1
        elif not call.is_inner and types == {"cpu"}:
            self.operators.on_cpu[call.name] += 1


@dataclass
class _Call:
    name: str
    is_inner: bool
    has_moved: bool = False


def log_operators(model: Any, inputs: Mapping[str, torch.Tensor], device: torch.device) -> Operators:
    """Run a model once and say where its operators ran.

    Args:
        model: The transformers model.
        inputs: Keyword arguments of `forward`, on the device.
        device: Where the model is.

    Raises:
        Exception: Whatever the model raises.
    """
    log = _OperatorLog(device.type)
    with torch.inference_mode(), log:
        model(**inputs)
    return log.operators


class ProductLog(TorchDispatchMode):  # type: ignore[misc]
    """Counts the products of matrices, convolutions included, that run within `with log:`.

    Attributes:
        count: How many there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += _is_product(func._schema.name)
        return func(*args, **(kwargs or {}))
