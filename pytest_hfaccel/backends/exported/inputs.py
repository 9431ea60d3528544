"""The inputs of a graph: what two calls must have in common to share one, and what becomes a constant or is computed.

Vision-language models loop over the sizes of their images. As inputs these are unknown to the tracer, and it gives up
at the first loop. transformers' exporter computes what follows from them (positions, segments) before it traces, and
the graph takes the results as inputs, for the sizes it was traced with; `ComputedInputs` computes them for every call.
Where it does not, `folded_geometry` makes the sizes constants of the trace; the graph then holds for these sizes only.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.upstream.torch import large_constants_in_traces
from pytest_hfaccel.upstream.transformers import add_inputs_computed_for_export

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import ModelSource

Tensors = Mapping[str, torch.Tensor]

TOKENS = frozenset(
    {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "mm_token_type_ids",
        "position_ids",
        "decoder_input_ids",
        "decoder_attention_mask",
    }
)
"""Inputs whose second axis counts tokens."""

SAMPLES = frozenset({"input_values"})
"""Inputs whose second axis counts audio samples."""

FOLDED = frozenset({"image_sizes"})
"""Inputs that transformers' exporter makes constants of the graph: their values, not their shapes, decide."""

GEOMETRY = frozenset(
    {
        "feature_lens",
        "grid_thw",
        "grid_thws",
        "image_grid_hws",
        "image_grid_thw",
        "image_merge_sizes",
        "merge_sizes",
        "target_sizes",
        "video_grid_thw",
        "video_merge_sizes",
    }
)
"""Inputs that say how large images and sounds are. What is computed of their values may be a constant of the graph."""

PIXELS = frozenset({"input_features", "pixel_values", "pixel_values_videos"})
"""Inputs that a language model gets in the place of tokens."""

_LARGEST_CONSTANT = 4096
"""Elements of a constant that torch's tracer computes with when sizes are folded."""


def varying_axes(name: str, tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the axes of an input that vary between calls: the batch, and the length of text and sound."""
    if name in FOLDED or tensor.ndim == 0:
        return ()
    return (0, 1) if name in TOKENS | SAMPLES and tensor.ndim == 2 else (0,)


def signature(inputs: Tensors, *, exact: bool, fixed_batch: bool) -> str:
    """Return a text that is equal for two calls that can share a graph.

    Args:
        inputs: The inputs of a call.
        exact: No axis may vary: the device takes static shapes only.
        fixed_batch: The batch may not vary: the model could not be traced for several batch sizes.
    """
    return json.dumps({name: _describe(name, inputs[name], exact, fixed_batch) for name in sorted(inputs)})


def _describe(name: str, tensor: torch.Tensor, exact: bool, fixed_batch: bool) -> dict[str, Any]:
    varying = () if exact else varying_axes(name, tensor)
    if fixed_batch:
        varying = tuple(axis for axis in varying if axis != 0)
    sizes = ["?" if axis in varying else size for axis, size in enumerate(tensor.shape)]
    described: dict[str, Any] = {"dtype": str(tensor.dtype), "sizes": sizes}
    if name in FOLDED | GEOMETRY:
        described["values"] = hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()[:16]
    return described


def widened(inputs: Tensors, *, fixed_batch: bool) -> dict[str, torch.Tensor]:
    """Return example inputs to trace with, at least 2 long on every varying axis.

    `torch.export` takes a length of 1 for a constant, so a lone sample or token is repeated.
    """
    wide = dict(inputs)
    rows = {tensor.shape[0] for name, tensor in inputs.items() if tensor.ndim and name not in FOLDED}
    if not fixed_batch and rows == {1}:
        wide = {name: tensor if name in FOLDED else torch.cat([tensor, tensor]) for name, tensor in wide.items()}
    for name, tensor in wide.items():
        if 1 in varying_axes(name, tensor) and tensor.shape[1] == 1:
            wide[name] = torch.cat([tensor, tensor], dim=1)
    return wide


def same_batch(inputs: Tensors, shapes: Mapping[str, Iterable[int]]) -> bool:
    """Whether every input has as many rows as the shape of the same name says."""
    return all(tuple(shapes[name])[:1] == tuple(tensor.shape[:1]) for name, tensor in inputs.items() if name in shapes)


def computed_inputs(model: Any, inputs: Tensors) -> dict[str, Any]:
    """Return what transformers' exporter computes of some inputs, by the name under which the model takes it.

    Args:
        model: The transformers model; its weights are not used.
        inputs: The inputs of a call of `forward`.

    Raises:
        LoadError: The exporter calls the model's code for it in a way that fails.
    """
    extended: dict[str, Any] = {name: value for name, value in inputs.items() if name not in FOLDED}
    try:
        with torch.no_grad():
            add_inputs_computed_for_export(model, extended)
    except Exception as error:
        raise LoadError(
            f"{type(model).__name__} cannot be converted: transformers' exporter fails to compute "
            f"some of its inputs: {type(error).__name__}: {error}",
            stage="convert",
        ) from error
    return {name: value for name, value in extended.items() if name not in inputs}


class ComputedInputs:
    """Computes those inputs for the calls of one model.

    Args:
        source: The checkpoint, for its config; its weights are not read.
    """

    def __init__(self, source: ModelSource) -> None:
        self._source = source

    def of(self, inputs: Tensors) -> dict[str, Any]:
        """Return what is to be added to the inputs of a call; nothing for most models."""
        return computed_inputs(self._model, inputs) if self._model is not None else {}

    @cached_property
    def _model(self) -> Any:
        """The model without weights; `None` where its class cannot be made so, and its graph gets no such inputs."""
        try:
            own = self._source.model_class()
            config = own.config_class.from_pretrained(self._source.directory, local_files_only=True)
            with torch.device("meta"):
                return own(config)
        except (AttributeError, ImportError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError):
            return None


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
    constants = {name: (value.tolist(), value.dtype) for name, value in inputs.items() if name in GEOMETRY}
    forward = model.forward

    @functools.wraps(forward)
    def with_constants(*args: Any, **kwargs: Any) -> Any:
        # Made of numbers during the trace: a tensor from outside would be an unknown one to the tracer.
        made = {name: torch.tensor(values, dtype=dtype) for name, (values, dtype) in constants.items()}
        return forward(*args, **kwargs, **made)

    model.forward = with_constants
    try:
        with large_constants_in_traces(_LARGEST_CONSTANT):
            yield
    finally:
        model.forward = forward
