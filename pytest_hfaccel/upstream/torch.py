"""torch, seen in 2.13."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from pytest_hfaccel.upstream import RefCountedContext


def _patch_init(undo: ExitStack) -> None:
    from torch.nn import init

    for name, function in list(vars(init).items()):
        if name.endswith("_") and not name.startswith("_") and callable(function):
            setattr(init, name, _unless_meta(function))
            undo.callback(setattr, init, name, function)


def _unless_meta(fill: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fill)
    def filled(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        return tensor if tensor.is_meta else fill(tensor, *args, **kwargs)

    return filled


skip_init_on_meta = RefCountedContext(_patch_init)
"""`with skip_init_on_meta:` has the functions of `torch.nn.init` return tensors on the device `meta` as they are.

transformers makes a model there before it reads the weights, and its layers begin by filling theirs. For nothing, but
not for free: torch computes `normal_` on `meta` in Python, 0.2 to 0.4 ms for each weight. That was a third of the time
of loading a tiny GPT-2 (4 of 12 ms) and a fifth of a tiny BERT's and T5's.

Tensors with numbers are filled as ever, also those of a weight that the checkpoint lacks and of another thread.
"""


@contextmanager
def large_constants_in_traces(elements: int) -> Iterator[None]:
    """Have `torch.export` compute with constants of up to so many elements while it traces.

    Its own limit is 1, meant for loop counters (`fake_tensor.CONSTANT_NUMEL_LIMIT`): the sizes of images, over which
    vision-language models loop, are longer. A torch without the limit is left as it is.
    """
    from torch._subclasses import fake_tensor

    limit = getattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", None)
    if limit is None:
        yield
        return
    fake_tensor.CONSTANT_NUMEL_LIMIT = elements
    try:
        yield
    finally:
        fake_tensor.CONSTANT_NUMEL_LIMIT = limit


def is_built_with_xpu() -> bool:
    """Whether this torch is built for Intel GPUs; `torch.xpu.is_available()` is false for a lacking device, too."""
    import torch

    return bool(torch.xpu._is_compiled())


def grouped_product() -> Callable[..., Any] | None:
    """Return torch's product of groups of matrices; `torch.nn.functional.grouped_mm` is its newer, public name."""
    import torch

    product: Callable[..., Any] | None = getattr(torch, "_grouped_mm", None)
    return product
