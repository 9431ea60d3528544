"""Records the operators that run inside a `with`, and the memory they hold: the one way this package traces models.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_hfaccel.tracing.torch.fake_kernels import run
from pytest_hfaccel.tracing.torch.flops import flops_of
from pytest_hfaccel.tracing.torch.kind import Kind, kind_of
from pytest_hfaccel.tracing.torch.live_bytes import LiveBytes, storage_key
from pytest_hfaccel.tracing.torch.traffic import distinct, read, written
from pytest_hfaccel.tracing.trace import Operator


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """Records what runs, on real tensors or on fake ones, whose storages only have sizes.

    Args:
        weights: The model's tensors: they are not counted as alive.
        inputs: Its inputs: likewise.

    Attributes:
        operators: In the order of execution, one entry each.
        memory: What is alive besides weights and inputs.
        curve: Bytes and floating-point numbers alive after each operator.
        multiplied: Storage -> the weight in it, of those that went into matrix products and convolutions.
    """

    def __init__(self, weights: Iterable[torch.Tensor], inputs: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self._weights = {storage_key(tensor): tensor for tensor in weights}
        self.operators: list[Operator] = []
        self.memory = LiveBytes([*self._weights.values(), *inputs])
        self.curve: list[tuple[int, int]] = []
        self.multiplied: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and record it."""
        kwargs = kwargs or {}
        kind = kind_of(func)
        arguments = _tensors((args, kwargs))
        out = run(func, kind.name, args, kwargs, arguments)
        if not kind.is_bookkeeping:
            results = _tensors(out)
            for tensor in results:
                self.memory.note(tensor)
            self.curve.append((self.memory.live, self.memory.floats))
            self.operators.append(self._operator(kind, args, kwargs, out, arguments, results))
        return out

    def _operator(
        self,
        kind: Kind,
        args: Any,
        kwargs: Any,
        out: Any,
        arguments: Sequence[torch.Tensor],
        results: Sequence[torch.Tensor],
    ) -> Operator:
        first = tuple(results[0].shape) if results else ()
        shapes = tuple(tuple(tensor.shape) for tensor in arguments[:3])
        if kind.is_view:
            return Operator(kind.name, shapes, first, 0, 0, 0, is_view=True)
        flops = flops_of(kind.name, kind.packet, args, kwargs, out)
        reads = read(kind.name, arguments, results)
        writes = written(kind.name, arguments, results or _tensors(kind.changed_of(args, kwargs)))
        return Operator(
            name=kind.name,
            shapes=shapes,
            out=first,
            flops=flops,
            read_bytes=reads.nbytes,
            written_bytes=writes.nbytes,
            groups=kind.groups_of(args),
            read_floats=reads.floats,
            written_floats=writes.floats,
            read_weights=self._multiply(arguments) if flops else 0,
        )

    def _multiply(self, arguments: Sequence[torch.Tensor]) -> int:
        """Note the weights of a matrix product; return how many numbers its matrices have, biases left out."""
        numbers = 0
        for tensor in {id(tensor): tensor for tensor in arguments}.values():
            key = storage_key(tensor)
            if key in self._weights:
                self.multiplied[key] = self._weights[key]
                numbers += distinct(tensor) if self._weights[key].dim() > 1 else 0
        return numbers


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
