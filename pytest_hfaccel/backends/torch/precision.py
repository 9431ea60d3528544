"""The precision a torch model really runs at."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from pytest_hfaccel.backends.torch.devices import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def forbid_reduced_fp32() -> None:
    """Make fp32 mean fp32: no TensorFloat-32 or bf16 inside matrix products and convolutions.

    Process-wide switches of torch; the CPU's oneDNN has them too.
    """
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    torch.backends.mkldnn.conv.fp32_precision = "ieee"


def fp32_precision(device_type: str) -> dict[str, str]:
    """Read back what fp32 means on a torch device type: `ieee`, `tf32` or `bf16` by kind of operation."""
    if device_type == "cuda":
        backends = torch.backends
        return {"matmul": backends.cuda.matmul.fp32_precision, "conv": backends.cudnn.conv.fp32_precision}
    if device_type == "cpu":
        mkldnn = torch.backends.mkldnn
        return {"matmul": mkldnn.matmul.fp32_precision, "conv": mkldnn.conv.fp32_precision}
    return {}


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
