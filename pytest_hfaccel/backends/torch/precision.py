"""The precision a torch model really runs at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from pytest_hfaccel.backends.torch.devices import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def forbid_reduced_fp32() -> None:
    """Make fp32 mean fp32: no TensorFloat-32 or bf16 inside matrix products and convolutions.

    These switches are process-wide. They are torch's older ones: `torch.export` reads them, and raises when the newer
    `fp32_precision` attributes have been set instead.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def fp32_precision() -> dict[str, Any]:
    """Read back what fp32 means to torch: `highest` matrix products, and whether TensorFloat-32 is allowed."""
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "conv_tf32": torch.backends.cudnn.allow_tf32,
    }


def parameter_dtypes(model: Any) -> dict[str, int]:
    """Count the floating-point parameters' elements by dtype."""
    counts: Counter[str] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            counts[_name(parameter.dtype)] += parameter.numel()
    return dict(counts)


def effective_dtype(model: Any, requested: str) -> tuple[str, list[str]]:
    """Return the dtype a model runs at, and the modules that its class keeps in fp32.

    Args:
        model: The transformers model.
        requested: The cell's dtype.

    Returns:
        The dtype, or `mixed` when parameters have several dtypes that the class does not declare.
    """
    declared = _declared_fp32(model) if requested in ("fp16", "bf16") else []
    free: set[str] = set()
    kept: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        module = next((part for part in declared if part in name), None)
        if module is not None and parameter.dtype == torch.float32:
            kept.add(module)
        else:
            free.add(_name(parameter.dtype))
    if not free:
        return ("fp32" if kept else requested), sorted(kept)
    return (free.pop() if len(free) == 1 else "mixed"), sorted(kept)


def _declared_fp32(model: Any) -> list[str]:
    fields = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    return sorted({module for field in fields for module in (getattr(model, field, None) or ())})


def _name(dtype: torch.dtype) -> str:
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))
