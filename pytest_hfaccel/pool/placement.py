"""Bringing what a constructor made to a device, and reading back where it is.

torch is not imported here: an object can only be a torch module if somebody has imported torch already.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.core.errors import LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Device

_DTYPES = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_TORCH_KINDS = {"cpu": "cpu", "mps": "mps", "cuda": "cuda", "rocm": "cuda", "xpu": "xpu"}
"""Our kinds of device -> torch's; ROCm builds call theirs `cuda`."""

_CONVERTED = "OpenVINO runs converted models; this one lies in main memory, where the conversion takes it from"


def loaded_torch() -> Any:
    """torch, if something has imported it; waits for an import that is under way in another thread."""
    if "torch" not in sys.modules:
        return None
    import torch

    return torch


def is_torch_module(value: Any) -> bool:
    """Whether a value is a `torch.nn.Module`; does not import torch."""
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


@contextmanager
def out_of_memory_on(device: Device) -> Iterator[None]:
    """Turn torch's errors about a device's memory into ours, which the pool answers by making room and trying again."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error).lower():  # torch.OutOfMemoryError, and MPS, which has no class of its own
            raise OutOfMemory(f"{device}: {str(error).splitlines()[0]}", stage="load") from error
        raise


def held_bytes(value: Any) -> int:
    """Bytes a value holds: of a module's parameters and buffers, or its own `nbytes`; 0 when it does not say."""
    if is_torch_module(value):
        return sum(int(tensor.nbytes) for tensor in _tensors(value))
    nbytes = getattr(value, "nbytes", 0)
    return int(nbytes) if isinstance(nbytes, int) else 0


def release_caches() -> None:
    """Give memory that nothing refers to any more back to the accelerators, where torch uses one."""
    gc.collect()
    torch = loaded_torch()
    if torch is None:
        return
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if torch.xpu.is_available():
        torch.xpu.empty_cache()


def _place_module(module: Any, device: Device, precision: str, is_emulated: bool) -> Placement:
    target = _torch_device(device)
    with out_of_memory_on(device):
        module.to(device=target, dtype=_torch_dtype(precision))
    places = sorted({_our_name(tensor.device, device) for tensor in _tensors(module)})
    wanted = "cpu" if device.kind == "openvino" else device.id
    if places not in ([], [wanted]):
        raise LoadError(f"{device}: after the move, tensors of the model are on {', '.join(places)}")
    found = sorted({_our_dtype(tensor.dtype) for tensor in _tensors(module) if tensor.is_floating_point()})
    if precision and found not in ([], [precision]):
        raise LoadError(f"{device}: after the cast to {precision}, tensors of the model are {', '.join(found)}")
    converted = device.kind == "openvino"
    return Placement(
        requested_device=device.id,
        actual_devices=tuple(places) or (wanted,),
        requested_dtype=precision or "as constructed",
        effective_dtype=found[0] if len(found) == 1 else "mixed" if found else "none",
        implementation="unavailable" if converted else "emulated" if is_emulated else "real",
        details={"reason": _CONVERTED} if converted else {},
    )


def _torch_device(device: Device) -> str:
    if device.kind == "openvino":
        return "cpu"
    if device.kind not in _TORCH_KINDS:
        raise LoadError(
            f"{device}: a torch module does not run there",
            hint=f"For {device.kind}, the constructor must return a model that its runtime has loaded.",
        )
    name = _TORCH_KINDS[device.kind]
    return f"{name}:{device.target}" if device.target else name


def _torch_dtype(precision: str) -> Any:
    return getattr(loaded_torch(), _DTYPES[precision]) if precision else None


def _our_name(device: Any, wanted: Device) -> str:
    """Our id of a torch device on which a tensor meant for `wanted` was found."""
    if device.type in ("cpu", "mps", "meta"):
        return str(device.type)
    kind = wanted.kind if _TORCH_KINDS.get(wanted.kind) == device.type else device.type
    return f"{kind}:{device.index or 0}"


def _our_dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return next((ours for ours, theirs in _DTYPES.items() if theirs == name), name)


def _tensors(module: Any) -> Iterable[Any]:
    """The parameters and buffers of a module; a shared one comes once."""
    yield from module.parameters()
    yield from module.buffers()
