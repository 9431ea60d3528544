"""A forward pass on inputs of the right shapes; only masks have values.

Imports torch: import this file late.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.tracing.input_shapes import TEXT, InputShape, input_shapes
from pytest_hfaccel.tracing.torch.vision_language import run_in_parts


def inputs_for(model: Any, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Return inputs without values for a model, floating-point ones at its dtype; masks are real and leave nothing out.

    A model asks whether a mask leaves anything out, and takes other kernels if it does: batches of equally long texts,
    which are what is measured and traced, have masks of ones.

    Raises:
        ConfigError: The model takes text, and the length is 0.
    """
    arguments = inspect.signature(model.forward).parameters
    required = {name: argument.default is inspect.Parameter.empty for name, argument in arguments.items()}
    shapes = input_shapes(model.config, required, model.main_input_name, batch, length)
    if not length and TEXT & shapes.keys():
        raise ConfigError(f"{type(model).__name__} takes text: length is 0. Allowed: whole numbers from 1.")
    return {name: _input(name, shape, model.dtype) for name, shape in shapes.items()}


def _input(name: str, shape: InputShape, dtype: torch.dtype) -> torch.Tensor:
    if name.endswith("mask") and not shape.floating:
        with unset_fake_temporarily():
            return torch.ones(shape.shape, dtype=torch.int64)
    return torch.empty(shape.shape, dtype=dtype if shape.floating else torch.int64)


def run_forward(model: Any, inputs: Mapping[str, torch.Tensor], length: int) -> Any:
    """Run a model on what `inputs_for` returned for the same length, and return its outputs."""
    if hasattr(model, "get_image_features") and hasattr(model, "generate") and "pixel_values" in inputs:
        return run_in_parts(model, inputs, length)
    return model(**inputs)
