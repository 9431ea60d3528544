"""The most bytes of tensors alive at once, and the floating-point operations, of what runs inside a `with`.

Imports torch: import this file late.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Counts what operators allocate and free; works on fake tensors, whose storages only have sizes.

    Args:
        weights: The model's tensors: not counted.
        inputs: Its inputs: not counted.

    Attributes:
        live: Bytes alive now; after a forward pass whose outputs are still held, those of the outputs.
        peak: Largest number of bytes alive at once.
        flops: Floating-point operations of matrix products, convolutions and attention: what the rest does is small.
    """

    def __init__(self, weights: Iterable[torch.Tensor], inputs: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.peak = 0
        self.flops = 0
        self.live = 0
        self._weights = {_storage_key(tensor) for tensor in weights}
        self._multiplied: dict[int, int] = {}
        self._seen = self._weights | {_storage_key(tensor) for tensor in inputs}

    @property
    def multiplied_bytes(self) -> int:
        """Bytes of the weights that went into matrix products and convolutions, each storage once."""
        return sum(self._multiplied.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note what it allocated."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        flops = _flops(func, args, kwargs or {}, out)
        self.flops += flops
        if flops:
            self._note_multiplied(args)
        return out

    def _note_multiplied(self, args: Any) -> None:
        for leaf in tree_leaves(args):
            if isinstance(leaf, torch.Tensor) and _storage_key(leaf) in self._weights:
                self._multiplied[_storage_key(leaf)] = int(leaf.untyped_storage().nbytes())

    def _note(self, tensor: torch.Tensor) -> None:
        storage, key = tensor.untyped_storage(), _storage_key(tensor)
        if key in self._seen:
            return
        size = int(storage.nbytes())
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def _storage_key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    packet = func._overloadpacket
    if "flash_attention_for_cpu" in str(packet):  # torch's own table lacks it
        query, key, value = args[:3]
        batch, heads, queries, width = query.shape
        return int(2 * batch * heads * queries * key.shape[2] * (width + value.shape[-1]))
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    return 0
