"""Tracing one model at one batch size, length and dtype; `traces.trace_of` remembers what this returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.tracing.precision import built_dtype
from pytest_hfaccel.tracing.trace import ModelTrace


def trace_model(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    batch: int,
    length: int,
    dtype: str = "fp32",
    training: bool = False,
) -> ModelTrace:
    """Trace a model of these dimensions on fake tensors: no weights, no download.

    The operators are those that torch runs on a CPU, in batches of equally long texts; other devices fuse differently.
    The model is built at the dtype, so casts that its code makes are among the operators. `int8` means weights only, as
    the runtimes of this package quantise transformers: the pass is that of fp32, and the matrices of matrix products
    and convolutions take one byte per number. A training step is the real backward pass of the sum of the outputs, and
    AdamW; see `torch.training.Trainer` for its memory.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        batch: Samples.
        length: Tokens per sample of text inputs, 0 where there are none; images and audio have the config's size.
        dtype: `fp32`, `bf16`, `fp16`, `int8` or `fp64`.
        training: Whether a training step is traced, else a forward pass.

    Raises:
        LoadError: transformers has no such class, cannot build it from these dimensions, or it has no pass on fake
            tensors, because what it does depends on values.
        ConfigError: The class's config does not take these dimensions, there is no such dtype, it cannot be trained, or
            no input has this batch or length.
    """
    built = built_dtype(dtype, training=training)
    require_sizes(batch, length)
    from pytest_hfaccel.tracing.torch.fake_model import FakeModel

    return FakeModel(architecture, dims, length=length, dtype=built, training=training).record(batch).trace(dtype)


def require_sizes(batch: int, length: int) -> None:
    """Refuse sizes that no input has.

    Raises:
        ConfigError: `batch` is below 1, or `length` below 0.
    """
    if batch < 1:
        raise ConfigError(f"trace: batch is {batch}. Allowed: whole numbers from 1.")
    if length < 0:
        raise ConfigError(f"trace: length is {length}. Allowed: whole numbers from 1; 0 for models without text.")
