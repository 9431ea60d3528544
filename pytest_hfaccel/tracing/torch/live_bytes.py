"""The bytes of tensors alive, by watching their storages come and go.

Imports torch: import this file late.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch


class LiveBytes:
    """Counts the storages of tensors it is shown, until they are freed; fake tensors have storages, too.

    Args:
        known: Tensors that are not counted: weights and inputs.

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


def storage_key(tensor: torch.Tensor) -> int:
    """Return what identifies the memory of a tensor: views share it."""
    return int(tensor.untyped_storage()._cdata)
