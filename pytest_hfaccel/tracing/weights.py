"""What a model holds before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers of a model.

    Attributes:
        parameters: Number of parameters, shared ones counted once.
        nbytes: Bytes of parameters and buffers.
        buffer_bytes: Bytes of the buffers.
        stored_buffer_bytes: Bytes of those buffers that a checkpoint holds.
    """

    parameters: int
    nbytes: int
    buffer_bytes: int
    stored_buffer_bytes: int


def weights_of(model: Any) -> Weights:
    """Count what a torch model holds, on any device: real, fake or meta."""
    parameters, buffers = list(model.parameters()), dict(model.named_buffers())
    stored = model.state_dict().keys()
    return Weights(
        parameters=sum(int(parameter.numel()) for parameter in parameters),
        nbytes=sum(map(tensor_bytes, (*parameters, *buffers.values()))),
        buffer_bytes=sum(map(tensor_bytes, buffers.values())),
        stored_buffer_bytes=sum(tensor_bytes(buffer) for name, buffer in buffers.items() if name in stored),
    )


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes of a tensor's numbers."""
    return int(tensor.numel() * tensor.element_size())
