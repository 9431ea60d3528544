"""Whether a checkpoint fits into the main memory at a dtype, judged before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import format_bytes

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import ModelSource

_BYTES = {"fp64": 8, "fp32": 4}
# Loading holds the checkpoint's own tensors beside the converted ones for a while, and a forward pass needs room.
_HEADROOM = 1.5

SMALL_BYTES = 256 * 2**20
"""A model up to this size may stay in memory for those who need it later."""


def too_large_for(source: ModelSource, dtype: str) -> str:
    """Return why the model does not fit into memory at `dtype`; empty when it does.

    Checkpoints without safetensors files are taken to fit: their sizes are not known without loading them.
    """
    import psutil

    need = int(_elements(source) * _BYTES[dtype] * _HEADROOM)
    available = psutil.virtual_memory().available
    if need <= available:
        return ""
    return f"{dtype} needs about {format_bytes(need)} of memory, {format_bytes(available)} are available"


def is_small(source: ModelSource) -> bool:
    """Whether a model may stay in memory for those who need it later; judged by the files of its checkpoint."""
    return sum(file.stat().st_size for file in source.directory.glob("*") if file.is_file()) <= SMALL_BYTES


def _elements(source: ModelSource) -> int:
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in sorted(source.directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            count += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return count
