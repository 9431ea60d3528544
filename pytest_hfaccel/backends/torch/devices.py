"""torch's devices: their names, whether they really answer, and the precision a model really runs at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from pytest_hfaccel.core.devices import BUILT_IN, TorchDevice, kind_named, torch_device_of
from pytest_hfaccel.core.errors import BackendUnavailable, error_line
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.upstream import RefCountedContext
from pytest_hfaccel.upstream.torch import is_built_with_xpu
from pytest_hfaccel.upstream.transformers import modules_kept_in_fp32

DTYPES: dict[str, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""The dtypes torch loads a model at; `fp64` is for references."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_ARITHMETIC = {**DTYPES, "int8": torch.float32}
"""The dtypes torch computes in. At int8 only the weights have 8 bits."""

_HINT = "`hfaccel hardware` lists the devices of this machine, with the reason for each one that is absent."
_PROBE_SIZE = 8


def our_name(device: torch.device, kind: str) -> str:
    """Return our id of a torch device on which a model of device kind `kind` was found."""
    if device.type in ("cpu", "mps", "meta"):
        return str(device.type)
    return f"{kind if device.type == _description(kind).module else device.type}:{device.index or 0}"


def _description(kind: str) -> TorchDevice:
    torch_device = kind_named(kind).torch
    assert torch_device is not None, f"torch does not compute on {kind}"  # noqa: S101 - the table says which it serves
    return torch_device


def device_function(device: torch.device, role: str) -> Callable[..., Any] | None:
    """Return a function of the module of a torch device, bound to the device; `None` where the module has none.

    Args:
        device: torch's device.
        role: What it does: a field of `pytest_hfaccel.core.devices.TorchDevice`, e.g. `memory_allocated`.
    """
    row = torch_device_of(device.type)
    function = getattr(getattr(torch, device.type, None), getattr(row.torch, role) or "?", None)
    if function is None or row.is_single or role in ("seed", "empty_cache"):
        return function
    return partial(function, device)


def dtype_of(name: str, device: Device) -> torch.dtype:
    """Return the dtype torch computes in.

    Raises:
        BackendUnavailable: torch has no such precision for a whole model.
    """
    if name not in _ARITHMETIC:
        raise BackendUnavailable(
            f"{device}: the torch backend cannot run at {name}. Allowed: {', '.join(_ARITHMETIC)}."
        )
    described = _description(device.kind).dtypes
    if name not in described:
        raise BackendUnavailable(
            f"{device}: its description says that it does not compute at {name}. Allowed: {', '.join(described)}."
        )
    return _ARITHMETIC[name]


@lru_cache(maxsize=64)
def confirm_device(device: Device, dtype: str) -> dict[str, Any]:
    """Run a small product on the device at a dtype.

    Returns:
        What the device says about itself: `name`, and `driver` or `capability` where torch knows them.

    Raises:
        BackendUnavailable: This torch cannot use the device, or it cannot compute at the dtype; with the reason.
    """
    reason = _why_unusable(device)
    if reason:
        raise BackendUnavailable(f"{device}: {reason}", stage="load", hint=_HINT)
    wanted = dtype_of(dtype, device)
    try:
        ones = torch.ones(_PROBE_SIZE, _PROBE_SIZE, device=device.torch_name, dtype=wanted)
        total = float((ones @ ones).sum().cpu())
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise BackendUnavailable(
            f"{device}: a product of two {dtype} matrices failed: {error_line(error)}", stage="load"
        ) from error
    if total != _PROBE_SIZE**3:
        raise BackendUnavailable(
            f"{device}: a product of two {dtype} matrices of ones sums to {total}, not {_PROBE_SIZE**3}", stage="load"
        )
    return _facts(device)


def _why_unusable(device: Device) -> str:
    if device.kind in ("cuda", "rocm"):
        return _why_no_cuda(device)
    if device.kind == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        return "macOS 14 or later on Apple silicon is needed" if built else f"{_build()} is built without MPS"
    if device.kind == "xpu":
        if not is_built_with_xpu():
            return f"{_build()} is built without XPU"
        return _why_no_index(device, torch.xpu.device_count() if torch.xpu.is_available() else 0)
    return "" if device.kind in BUILT_IN else _why_not_described(device)


def _why_not_described(device: Device) -> str:
    """Import the package that brings a described device to torch, and ask the module that it adds."""
    described = _description(device.kind)
    if described.package:
        try:
            import_module(described.package)
        except Exception as error:  # whatever a vendor's package raises where its driver is missing
            return f"its package {described.package!r} cannot be imported: {type(error).__name__}: {error}"
    module = getattr(torch, described.module, None)
    if module is None:
        whose = f"importing {described.package!r}" if described.package else "this torch"
        return f"there is no module torch.{described.module}: {whose} adds none"
    lacking = [name for name in ("is_available", "device_count") if not hasattr(module, name)]
    if lacking:
        return f"torch.{described.module} has no function {' and no '.join(lacking)}, so that it cannot be asked"
    return _why_no_index(device, int(module.device_count()) if module.is_available() else 0)


def _why_no_cuda(device: Device) -> str:
    if device.kind == "cuda" and torch.version.hip:
        return f"{_build()} is built for ROCm {torch.version.hip}: its devices are named rocm:<index>"
    if device.kind == "rocm" and torch.version.cuda:
        return f"{_build()} is built for CUDA {torch.version.cuda}, not for ROCm"
    if not torch.version.cuda and not torch.version.hip:
        return f"{_build()} is built without {'CUDA' if device.kind == 'cuda' else 'ROCm'}"
    return _why_no_index(device, torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _why_no_index(device: Device, count: int) -> str:
    if count == 0:
        return f"torch finds no {device.kind} device (driver missing or too old, or devices hidden)"
    return "" if int(device.target or 0) < count else f"torch finds {count} of its kind, numbered from 0"


def _build() -> str:
    return f"this torch ({torch.__version__})"


def _facts(device: Device) -> dict[str, Any]:
    name = device.torch_name
    if device.kind in ("cuda", "rocm"):
        properties = torch.cuda.get_device_properties(name)
        facts = {"name": properties.name, "memory_bytes": properties.total_memory}
        if device.kind == "cuda":
            facts["compute_capability"] = f"{properties.major}.{properties.minor}"
            facts["runtime"] = f"CUDA {torch.version.cuda}"
        else:
            facts["architecture"] = properties.gcnArchName
            facts["runtime"] = f"ROCm {torch.version.hip}"
        return facts
    if device.kind == "xpu":
        properties = torch.xpu.get_device_properties(name)
        return {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "driver": properties.driver_version,
        }
    if device.kind == "mps":
        return {"name": "Apple GPU", "memory_bytes": torch.mps.recommended_max_memory()}
    if device.kind == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return {"name": "CPU", "threads": torch.get_num_threads(), "capability": capability}
    return _facts_of_described(device)


def _facts_of_described(device: Device) -> dict[str, Any]:
    described = _description(device.kind)
    here = torch.device(device.torch_name)
    name_of = getattr(getattr(torch, described.module), "get_device_name", None)
    memory_of = device_function(here, "mem_get_info")
    facts: dict[str, Any] = {"name": name_of(here) if name_of else described.module}
    if memory_of is not None:
        facts["memory_bytes"] = int(memory_of()[1])
    package = described.package.partition(".")[0]
    if package:
        with suppress(PackageNotFoundError):
            facts["runtime"] = f"{package} {version(package)}"
    return facts


def _forbid_reduced_fp32(undo: ExitStack) -> None:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    with suppress(RuntimeError):  # torch does not read the older switches once somebody has set the newer ones
        undo.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        undo.callback(setattr, matmul, "allow_tf32", matmul.allow_tf32)
        undo.callback(setattr, convolutions, "allow_tf32", convolutions.allow_tf32)
    torch.set_float32_matmul_precision("highest")
    matmul.allow_tf32 = False
    convolutions.allow_tf32 = False


full_fp32 = RefCountedContext(_forbid_reduced_fp32)
"""`with full_fp32:` makes fp32 mean fp32: no TensorFloat-32 or bf16 inside matrix products and convolutions.

The switches are process-wide; a loaded model holds them until it is closed. They are torch's older ones: `torch.export`
reads them, and raises when the newer `fp32_precision` attributes have been set instead.
"""


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
    declared = modules_kept_in_fp32(model) if requested in ("fp16", "bf16") else []
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


def _name(dtype: torch.dtype) -> str:
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))
