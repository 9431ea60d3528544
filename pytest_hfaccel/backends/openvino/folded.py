"""Sizes of images and sounds as constants of a trace.

Vision-language models loop over the sizes of their images. As inputs these are unknown to the tracer, and it gives up
at the first loop; as constants it follows them. The graph then holds for these sizes only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.openvino.shapes import GEOMETRY

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

_LARGEST_CONSTANT = 4096
"""Elements of a constant that torch's tracer computes with. Its own limit is 1: it is meant for loop counters."""


def without_geometry(inputs: Tensors) -> dict[str, torch.Tensor]:
    """Return the inputs that are left when the sizes are constants."""
    return {name: value for name, value in inputs.items() if name not in GEOMETRY}


@contextmanager
def folded_geometry(model: Any, inputs: Tensors) -> Iterator[None]:
    """Have a model's `forward` take the sizes among some inputs as constants, and the tracer compute with them.

    Args:
        model: The transformers model; its `forward` is put back afterwards.
        inputs: The inputs of a call.
    """
    import torch
    from torch._subclasses import fake_tensor

    constants = {name: (value.tolist(), value.dtype) for name, value in inputs.items() if name in GEOMETRY}
    forward = model.forward

    @functools.wraps(forward)
    def with_constants(*args: Any, **kwargs: Any) -> Any:
        # Made of numbers during the trace: a tensor from outside would be an unknown one to the tracer.
        made = {name: torch.tensor(values, dtype=dtype) for name, (values, dtype) in constants.items()}
        return forward(*args, **kwargs, **made)

    limit = getattr(fake_tensor, "CONSTANT_NUMEL_LIMIT", None)
    model.forward = with_constants
    try:
        if limit is not None:
            fake_tensor.CONSTANT_NUMEL_LIMIT = _LARGEST_CONSTANT
        yield
    finally:
        model.forward = forward
        if limit is not None:
            fake_tensor.CONSTANT_NUMEL_LIMIT = limit
