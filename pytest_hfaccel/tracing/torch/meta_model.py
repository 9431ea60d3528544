"""Building a model without memory: on the meta device, then with fake tensors in the place of its weights.

Imports torch: import this file late.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from pytest_hfaccel.checkpoints.configs import model_class, real_config
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import ModelSpec

TORCH_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtypes a model is built at."""


def meta_model(architecture: str, dims: Mapping[str, Any], dtype: str = "fp32") -> Any:
    """Build a model on the meta device, in eval mode: shapes without memory.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        dtype: One of `TORCH_DTYPES`.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    spec = ModelSpec(name=architecture, architecture=architecture, task="", dims=dims)
    model_class_, config = model_class(spec), real_config(spec)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # What `AutoModel.from_config` calls: it also builds the parts of a model at the dtype.
            model = model_class_._from_config(config, dtype=TORCH_DTYPES[dtype]).eval()
    except Exception as error:
        # Any constructor can fail in any way: all of it is "this cannot be built".
        raise LoadError(f"{architecture} cannot be built without memory: {type(error).__name__}: {error}") from error
    _keep_in_fp32(model, dtype)
    return model


_KEPT_IN_FP32 = {
    "fp16": ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"),
    "bf16": ("_keep_in_fp32_modules_strict",),
}
"""dtype -> the fields of a class that name, as wildcards, what `from_pretrained` leaves in fp32."""


def _keep_in_fp32(model: Any, dtype: str) -> None:
    fields = _KEPT_IN_FP32.get(dtype, ())
    names = sorted({name for field in fields for name in (getattr(model, field, None) or ())})
    if not names:
        return
    wildcards = "|".join(re.escape(name).replace(r"\*", ".*") for name in names)
    kept = re.compile(rf"(?:^|\.)(?:{wildcards})(?:\.|$)")
    for name, parameter in model.named_parameters():
        if kept.search(name):
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
