"""Records the operators that run inside a `with`, and the memory they hold: the one way this package traces models.

Imports torch: import this file late.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_hfaccel.tracing.torch.costs import distinct, flops_of, kind_of, read, written
from pytest_hfaccel.tracing.trace import Operator
from pytest_hfaccel.upstream.torch import storage_key


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """Records what runs, on real tensors or on fake ones, whose storages only have sizes.

    Attributes:
        operators: In the order of execution, one entry each.
        memory: What is alive, weights and inputs not counted.
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
        out = _run(func, kind.name, args, kwargs, arguments)
        if not kind.is_bookkeeping:
            results = _tensors(out)
            for tensor in results:
                self.memory.note(tensor)
            self.curve.append((self.memory.live, self.memory.floats))
            flops = 0 if kind.is_view else flops_of(kind.name, kind.packet, args, kwargs, out)
            shapes = tuple(tuple(tensor.shape) for tensor in arguments[:3])
            first = tuple(results[0].shape) if results else ()
            operator = Operator(kind.name, shapes, first, flops, 0, 0, kind.is_view)
            if not kind.is_view:
                reads = read(kind.name, arguments, results)
                writes = written(kind.name, arguments, results or _tensors(kind.changed_of(args, kwargs)))
                operator = replace(
                    operator,
                    read_bytes=reads.nbytes,
                    written_bytes=writes.nbytes,
                    groups=kind.groups_of(args),
                    read_floats=reads.floats,
                    written_floats=writes.floats,
                    read_weights=self._multiply(arguments) if flops else 0,
                )
            self.operators.append(operator)
        return out

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


def _run(func: Any, name: str, args: Any, kwargs: Any, arguments: Sequence[torch.Tensor]) -> Any:
    """Run an operator.

    What only concerns real tensors runs for real among fake ones, too: models ask whether a mask leaves anything out,
    and take another way if it does. So does what makes a mask where a model was given none: ones of (batch, tokens) or
    (batch, height, width).
    """
    has_fakes = any(isinstance(tensor, FakeTensor) for tensor in arguments)
    makes_mask = name == "ones" and len(args[0]) in (2, 3)
    if makes_mask or (arguments and not has_fakes):
        with unset_fake_temporarily():
            return func(*args, **kwargs)
    stand_in = _grouped_mm if has_fakes and name == "_grouped_mm" else func
    return stand_in(*args, **kwargs)


def _grouped_mm(rows: Any, matrices: Any, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
    """The products of mixtures of experts: torch's own fake version only knows bf16, the CPU all dtypes."""
    del bias
    groups: tuple[int, ...] = ()
    if rows.dim() == matrices.dim():
        groups = (offs.shape[0] if rows.dim() == 2 else rows.shape[0],)
    return rows.new_empty((*groups, rows.shape[-2], matrices.shape[-1]), dtype=out_dtype or rows.dtype)


class LiveBytes:
    """Counts the storages of tensors it is shown, until they are freed; fake tensors have storages, too.

    Attributes:
        live: Bytes alive now.
        floats: Floating-point numbers alive now.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        self.live = 0
        self.floats = 0
        self._seen = {storage_key(tensor) for tensor in known}

    def note(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor that an operator returned, unless it is known."""
        storage = tensor.untyped_storage()
        key = storage_key(tensor)
        if key in self._seen:
            return
        size = int(storage.nbytes())
        floats = size // tensor.element_size() if tensor.is_floating_point() else 0
        self._seen.add(key)
        self.live += size
        self.floats += floats
        weakref.finalize(storage, self._freed, key, size, floats).atexit = False

    def _freed(self, key: int, size: int, floats: int) -> None:
        self._seen.discard(key)
        self.live -= size
        self.floats -= floats
