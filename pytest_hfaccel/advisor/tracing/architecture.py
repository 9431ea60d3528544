"""What an architecture costs, seen by building it without memory and running it on fake tensors.

Imports torch: import this file late.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pytest_hfaccel.advisor.cost import ArchitectureCost, RunCost
from pytest_hfaccel.advisor.tracing.input_shapes import InputShape, input_shapes, text_length
from pytest_hfaccel.advisor.tracing.live_bytes import LiveBytes
from pytest_hfaccel.advisor.tracing.vision_language import run_in_parts
from pytest_hfaccel.checkpoints.configs import model_class, real_config
from pytest_hfaccel.errors import LoadError
from pytest_hfaccel.spec import ModelSpec

_BATCHES = (1, 2)
"""Two batch sizes give fixed and per-sample bytes of the activations, which grow linearly with the batch."""


def trace_architecture(architecture: str, dims: Mapping[str, Any], length: int) -> ArchitectureCost:
    """Compute what a model of these dimensions holds and what a forward pass of it takes, in fp32.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs; images and audio have the size the config says.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    model = meta_model(architecture, dims)
    length = text_length(model.config, length)
    buffers = dict(model.named_buffers())
    stored = model.state_dict().keys()
    return ArchitectureCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        buffer_bytes=sum(_nbytes(buffer) for buffer in buffers.values()),
        stored_buffer_bytes=sum(_nbytes(buffer) for name, buffer in buffers.items() if name in stored),
        length=length,
        **_runs(model, length),
    )


def meta_model(architecture: str, dims: Mapping[str, Any]) -> Any:
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
            return model_class_(config).eval()
    except Exception as error:
        # Any constructor can fail in any way: all of it is "this cannot be built".
        raise LoadError(f"{architecture} cannot be built without memory: {type(error).__name__}: {error}") from error


def _runs(model: Any, length: int) -> dict[str, Any]:
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            held = _swap_for_fakes(model)
            (one, output_bytes), (two, _) = (_run(model, held, batch, length) for batch in _BATCHES)
    except Exception as error:
        # A forward pass may depend on values, which fake tensors do not have: parameters are known all the same.
        return {"run": None, "problem": f"no forward pass on fake tensors: {type(error).__name__}: {error}"[:300]}
    per_sample = max(0, two.peak - one.peak)
    run = RunCost(
        fixed_bytes=max(0, one.peak - per_sample),
        bytes_per_sample=per_sample,
        flops_per_sample=one.flops,
        output_bytes_per_sample=output_bytes,
        multiplied_bytes=one.multiplied_bytes,
    )
    return {"run": run, "problem": ""}


def _run(model: Any, held: list[torch.Tensor], batch: int, length: int) -> tuple[LiveBytes, int]:
    arguments = inspect.signature(model.forward).parameters
    required = {name: argument.default is inspect.Parameter.empty for name, argument in arguments.items()}
    shapes = input_shapes(model.config, required, model.main_input_name, batch, length)
    inputs = {name: _empty(shape) for name, shape in shapes.items()}
    forward = run_in_parts if _is_vision_language(model, inputs) else _run_whole
    counter = LiveBytes(held, inputs.values())
    with torch.no_grad(), counter:
        outputs = forward(model, inputs, length)
    output_bytes = counter.live
    del outputs
    return counter, output_bytes


def _is_vision_language(model: Any, inputs: Mapping[str, torch.Tensor]) -> bool:
    return hasattr(model, "get_image_features") and hasattr(model, "generate") and "pixel_values" in inputs


def _run_whole(model: Any, inputs: Mapping[str, torch.Tensor], _length: int) -> Any:
    return model(**inputs)


def _empty(shape: InputShape) -> torch.Tensor:
    return torch.empty(shape.shape, dtype=torch.float32 if shape.floating else torch.int64)


def _swap_for_fakes(model: Any) -> list[torch.Tensor]:
    """Put fake CPU tensors in the place of all meta tensors of a model: it then runs as it would on the CPU.

    To be called while fake tensors are made instead of real ones.
    """
    made: dict[int, torch.Tensor] = {}
    kept = []

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            kept.append(tensor)  # an id is only its own as long as the tensor lives
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=False) if is_parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            for name, value in list(held.items()):
                if isinstance(value, torch.Tensor) and value.device.type == "meta":
                    held[name] = fake(value)
    return list(made.values())


def _nbytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
