"""Building a model without memory and recording its passes, on fake tensors.

Imports torch: import this file late.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from pytest_hfaccel.checkpoints.configs import model_class, real_config
from pytest_hfaccel.core.errors import ConfigError, HfAccelError, LoadError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.tracing.input_shapes import TEXT, InputShape, input_shapes, text_length
from pytest_hfaccel.tracing.recording import Recording, Subject, tensor_bytes, weights_of
from pytest_hfaccel.tracing.torch.passes import record_forward, record_step
from pytest_hfaccel.upstream.transformers import model_from_config, modules_kept_in_fp32, quiet


class FakeModel:
    """A model of real dimensions without memory, to be recorded at any batch size.

    Args:
        length: Tokens per sample of text inputs; models with fewer positions take fewer.
        dtype: dtype it is built at: `fp32`, `bf16`, `fp16` or `fp64`.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """

    def __init__(
        self, architecture: str, dims: Mapping[str, Any], *, length: int, dtype: str = "fp32", training: bool = False
    ) -> None:
        self._architecture, self._dtype, self._training = architecture, dtype, training
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._model = meta_model(architecture, dims, dtype)
        self._length = text_length(self._model.config, length)
        with self._mode:
            self._tensors = swap_for_fakes(self._model)

    def record(self, batch: int) -> Recording:
        """Run one pass and record it.

        Raises:
            LoadError: There is no pass on fake tensors: what the model does may depend on values.
            ConfigError: The model takes text, and the length is 0.
        """
        try:
            with self._mode, quiet:
                return self._run(batch)
        except HfAccelError:
            raise
        except Exception as error:
            # Models' code can fail in any way.
            problem = f"no pass on fake tensors: {type(error).__name__}: {error}"[:300]
            raise LoadError(f"{self._architecture}: {problem}", stage="run") from error

    def _run(self, batch: int) -> Recording:
        inputs = inputs_for(self._model, batch, self._length)
        run = record_step if self._training else record_forward
        done = run(self._model, self._tensors, inputs, lambda model, given: run_forward(model, given, self._length))
        multiplied = list(done.recorder.multiplied.values())
        subject = Subject(
            architecture=self._architecture,
            length=self._length,
            dtype=self._dtype,
            training=self._training,
            weights=weights_of(self._model),
            multiplied_bytes=sum(map(tensor_bytes, multiplied)),
            multiplied_matrices=sum(tensor.numel() for tensor in multiplied if tensor.dim() > 1),
            multiplied_vectors=sum(tensor.numel() for tensor in multiplied if tensor.dim() < 2),
            optimizer_bytes=done.optimizer_bytes,
        )
        return Recording(subject, batch, tuple(done.recorder.operators), tuple(done.recorder.curve), done.output)


TORCH_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtypes a model is built at."""


def meta_model(architecture: str, dims: Mapping[str, Any], dtype: str = "fp32") -> Any:
    """Build a model on the meta device, in eval mode: shapes without memory.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    spec = ModelSpec(name=architecture, architecture=architecture, task="", dims=dims)
    model_class_, config = model_class(spec), real_config(spec)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = model_from_config(model_class_, config, TORCH_DTYPES[dtype]).eval()
    except Exception as error:
        # Any constructor can fail in any way: all of it is "this cannot be built".
        raise LoadError(f"{architecture} cannot be built without memory: {type(error).__name__}: {error}") from error
    _keep_in_fp32(model, dtype)
    return model


def _keep_in_fp32(model: Any, dtype: str) -> None:
    names = modules_kept_in_fp32(model, strictly=dtype == "bf16") if dtype in ("fp16", "bf16") else []  # wildcards
    wildcards = "|".join(re.escape(name).replace(r"\*", ".*") for name in names)
    for name, parameter in model.named_parameters():
        if names and re.search(rf"(?:^|\.)(?:{wildcards})(?:\.|$)", name):
            parameter.data = parameter.data.float()


def swap_for_fakes(model: Any) -> list[torch.Tensor]:
    """Put fake CPU tensors in the place of all meta tensors of a model: it then runs as it would on the CPU.

    To be called while fake tensors are made instead of real ones.

    Returns:
        The fake tensors, shared ones once.
    """
    made: dict[int, torch.Tensor] = {}
    kept = []

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            kept.append(tensor)  # an id is only its own as long as the tensor lives
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for name, value in list(held.items()):
                if isinstance(value, torch.Tensor) and value.device.type == "meta":
                    held[name] = fake(value)
    return list(made.values())


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


_CROPS = 5
"""Crops of an image in models that tile it (LLaVA-Next): the whole image and two by two tiles."""


def run_in_parts(model: Any, inputs: Mapping[str, torch.Tensor], length: int) -> Any:
    """Encode the images, then run the language model on texts of `length` tokens with the image tokens among them.

    Args:
        model: A model with `get_image_features`.
        inputs: Holds `pixel_values`: images, of shape (batch, channels, height, width).
        length: Tokens per sample, image tokens not counted.

    Returns:
        The outputs of both parts, which are alive together at the end.
    """
    images = inputs["pixel_values"]
    batch = images.shape[0]
    features = _image_features(model, images)
    hidden = model.config.get_text_config().hidden_size
    tokens = sum(feature.numel() for feature in features) // hidden // batch
    embeddings = torch.empty(batch, length + tokens, hidden, dtype=images.dtype)
    mask = torch.ones(batch, length + tokens, dtype=torch.int64)
    return features, model(inputs_embeds=embeddings, attention_mask=mask)


def _image_features(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    batch, channels, height, width = images.shape
    if getattr(model.config, "image_grid_pinpoints", None) is None:
        outputs = model.get_image_features(pixel_values=images)
    else:
        crops = torch.empty(batch, _CROPS, channels, height, width, dtype=images.dtype)
        outputs = model.get_image_features(pixel_values=crops, image_sizes=[[2 * height, 2 * width]] * batch)
    pooled = getattr(outputs, "pooler_output", None)
    features = outputs if pooled is None else pooled
    return [features] if isinstance(features, torch.Tensor) else list(features)
