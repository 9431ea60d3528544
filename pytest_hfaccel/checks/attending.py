"""The implementations of attention that transformers has for a class, and a model run with one of them.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.copies import own_copy, placed
from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import LoadError

EAGER, SDPA, FLASH, FLEX = "eager", "sdpa", "flash_attention_2", "flex_attention"
_SUPPORTS = {SDPA: "_supports_sdpa", FLASH: "_supports_flash_attn", FLEX: "_supports_flex_attn"}
"""The attribute by which a class says that it has an implementation."""

_FLASH_DTYPES = frozenset({"fp16", "bf16"})


class CountedSdpa(TorchFunctionMode):  # type: ignore[misc]
    """Counts the calls of torch's fused attention while it is active.

    Attributes:
        calls: The calls so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and run everything as it is."""
        self.calls += func is functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def implementations(context: CheckContext) -> tuple[list[str], dict[str, str]]:
    """Return the implementations to compare with eager, and for each of the others why it is left out."""
    model = context.loaded.pipeline_model()
    kind, dtype, name = context.cell.device.kind, context.cell.dtype, type(model).__name__
    reasons = {
        SDPA: "" if getattr(model, _SUPPORTS[SDPA]) else f"{name} does not support it",
        FLASH: _why_no_flash(model, kind, dtype),
        FLEX: _why_no_flex(model, kind),
    }
    if not model._can_set_attn_implementation():
        reasons = dict.fromkeys(reasons, f"{name} has one attention of its own, which cannot be exchanged")
    return [one for one, why in reasons.items() if not why], {one: why for one, why in reasons.items() if why}


def ran_with(
    context: CheckContext, implementation: str, inputs: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], int]:
    """Run a copy of the model with an implementation.

    Returns:
        The outputs on the CPU, and the calls of torch's fused attention that they took.

    Raises:
        LoadError: The model keeps another implementation.
    """
    model = own_copy(context)
    model.set_attn_implementation(_wanted(model, implementation))
    counted = CountedSdpa()
    with torch.no_grad(), counted:
        outputs = flatten_outputs(model(**placed(inputs, model)))
    chosen = model.config._attn_implementation
    if chosen != implementation:
        raise LoadError(
            f"{type(model).__name__}: asked for {implementation}, but its config says {chosen}", stage="run"
        )
    return {name: leaf.cpu() for name, leaf in outputs.items()}, counted.calls


def _wanted(model: Any, implementation: str) -> dict[str, str]:
    """Return the implementation by part of the model; parts without attention (DETR's ResNet) refuse any but eager."""
    from transformers import PreTrainedModel

    wanted = {"": implementation}
    parts = {id(part.config): part for part in model.modules() if isinstance(part, PreTrainedModel)}
    for key in model.config.sub_configs:
        part = parts.get(id(getattr(model.config, key, None)))
        has_it = implementation == EAGER or part is None or getattr(part, _SUPPORTS[implementation])
        wanted[key] = implementation if has_it else EAGER
    return wanted


def _why_no_flash(model: Any, kind: str, dtype: str) -> str:
    from transformers.utils import is_flash_attn_2_available

    if not model._supports_flash_attn:
        return f"{type(model).__name__} does not support it"
    if kind not in GPU_KINDS or not is_flash_attn_2_available():
        return "the package flash-attn is not installed, or not for this device"
    return "" if dtype in _FLASH_DTYPES else f"it runs at {' and '.join(sorted(_FLASH_DTYPES))} only"


def _why_no_flex(model: Any, kind: str) -> str:
    if not model._supports_flex_attn:
        return f"{type(model).__name__} does not support it"
    return "" if kind in GPU_KINDS else "on this device torch has no fused kernel for it"
