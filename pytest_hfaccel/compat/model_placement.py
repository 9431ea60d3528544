"""Placement and memory of the named models of a resource pool.

torch is not imported here: an object can only be a torch module if somebody has imported torch already.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from typing import Any

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.cpu import Memory

MB = 2**20
ENVIRONMENT = "RESOURCE_POOL_LOW_MEMORY"

# The guide's numbers, for the pool and for advice about it.
LOW_MEMORY_BYTES = 4096 * MB
"""Available main memory below which low-memory mode is on by itself."""
MAX_AGE_MINUTES = 30
LOW_MEMORY_MINUTES = 10
SCARCE_MINUTES = 5
"""Longest that a resource stays unused: usually, in low-memory mode, and while main memory is scarce."""
_SCARCE_SHARE = 0.20
"""Share of main memory below which what is available counts as pressure."""
_PRESSURE_PERCENT = 80.0
"""Share of an accelerator's memory allocated above which it is under pressure."""

_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_CONVERTED = "OpenVINO runs converted models; this one is in main memory, ready for conversion"


def loaded_torch() -> Any:
    """torch, if something has imported it; waits for an import that is under way in another thread."""
    if "torch" not in sys.modules:
        return None
    import torch

    return torch


def is_torch_module(value: Any) -> bool:
    """Whether a value is a `torch.nn.Module`."""
    torch = loaded_torch()
    return torch is not None and isinstance(value, torch.nn.Module)


def place(value: Any, device: Device, precision: str = "", *, is_emulated: bool = False) -> Placement | None:
    """Bring a value to a device at a precision, and say where it is then.

    A torch module is moved and cast in place; where it is is read from its parameters and buffers. Anything else is
    left as it is.

    Returns:
        Where it is; `None` for a value that does not say.

    Raises:
        LoadError: A torch module is not where it was moved to, or the device does not run torch modules; or a model
            with a placement of its own is on another device.
        OutOfMemory: The device's memory does not suffice.
    """
    if is_torch_module(value):
        return _place_module(value, device, precision, is_emulated)
    stated = getattr(value, "placement", None)
    if not isinstance(stated, Placement):
        return None
    if stated.requested_device != device.id:
        raise LoadError(f"{device}: the constructor made a model for {stated.requested_device}")
    return stated


def nbytes_of(value: Any) -> int:
    """Bytes a value holds: of a module's parameters and buffers, or its own `nbytes`; 0 when it does not say."""
    if is_torch_module(value):
        return sum(int(tensor.nbytes) for tensor in _tensors(value))
    nbytes = getattr(value, "nbytes", 0)
    return int(nbytes) if isinstance(nbytes, int) else 0


def release_caches() -> None:
    """Give memory that nothing refers to any more back to the accelerators, where torch uses one."""
    gc.collect()
    torch = loaded_torch()
    if torch is not None and torch.accelerator.is_available():
        torch.accelerator.empty_cache()  # does nothing for an accelerator that this process has not used


def _place_module(module: Any, device: Device, precision: str, is_emulated: bool) -> Placement:
    from pytest_hfaccel.backends.torch.devices import DTYPES, our_name

    is_converted = device.kind == "openvino"
    target, wanted = ("cpu", "cpu") if is_converted else (device.torch_name, device.id)
    if not target:
        raise LoadError(
            f"{device}: a torch module does not run there",
            hint=f"For {device.kind}, the constructor must return a model that its runtime has loaded.",
        )
    with out_of_memory_raised(device.id, "load"):
        module.to(device=target, dtype=DTYPES[precision] if precision else None)
    places = sorted({our_name(tensor.device, device.kind) for tensor in _tensors(module)})
    if places not in ([], [wanted]):
        raise LoadError(f"{device}: after the move, tensors of the model are on {', '.join(places)}")
    floating = {tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    dtypes = sorted(names.get(dtype, str(dtype).removeprefix("torch.")) for dtype in floating)
    if precision and dtypes not in ([], [precision]):
        raise LoadError(f"{device}: after the cast to {precision}, tensors of the model are {', '.join(dtypes)}")
    return Placement(
        requested_device=device.id,
        actual_devices=tuple(places) or (wanted,),
        requested_dtype=precision or "as constructed",
        effective_dtype=dtypes[0] if len(dtypes) == 1 else "mixed" if dtypes else "none",
        implementation="unavailable" if is_converted else "emulated" if is_emulated else "real",
        details={"reason": _CONVERTED} if is_converted else {},
    )


def _tensors(module: Any) -> Iterable[Any]:
    yield from module.parameters()
    yield from module.buffers()


def is_scarce(memory: Memory) -> bool:
    """Whether less than a fifth of main memory is available."""
    return memory.available_bytes < _SCARCE_SHARE * memory.total_bytes


def memory_statistics(memory: Memory) -> dict[str, Any]:
    """Return main memory as the statistics have it."""
    used = 1 - memory.available_bytes / memory.total_bytes if memory.total_bytes else 0.0
    return {
        "total_mb": round(memory.total_bytes / MB, 1),
        "available_mb": round(memory.available_bytes / MB, 1),
        "percent_used": round(100 * used, 1),
        "under_pressure": is_scarce(memory),
    }


def cuda_memory() -> dict[str, Any]:
    """Return the memory of the GPUs as torch's CUDA interface sees them; none while nothing has imported torch.

    `free_mb` is `None` for a GPU this process does not use, because asking would take hundreds of megabytes of it.
    """
    torch = loaded_torch()
    count = int(torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else 0
    return {"device_count": count, "devices": [_gpu(torch, index) for index in range(count)]}


def _gpu(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    allocated, reserved = torch.cuda.memory_allocated(index), torch.cuda.memory_reserved(index)
    percent = 100 * allocated / properties.total_memory
    return {
        "id": index,
        "name": properties.name,
        "total_mb": properties.total_memory / MB,
        "allocated_mb": allocated / MB,
        "reserved_mb": reserved / MB,
        "free_mb": torch.cuda.mem_get_info(index)[0] / MB if reserved else None,
        "percent_used": round(percent, 1),
        "under_pressure": percent > _PRESSURE_PERCENT,
    }


def is_low_memory_mode_on(memory: Memory) -> bool:
    """Whether it is on for somebody who did not set it: as the environment says, else by the memory available.

    Raises:
        ConfigError: The environment variable has a value that is neither yes nor no.
    """
    asked = os.environ.get(ENVIRONMENT, "").strip().lower()
    if asked and asked not in (*_ON, *_OFF):
        raise ConfigError(f"{ENVIRONMENT}: {asked!r} is not a switch. Allowed: {', '.join((*_ON, *_OFF))}.")
    return asked in _ON if asked else memory.available_bytes < LOW_MEMORY_BYTES
