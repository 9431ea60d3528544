"""A device of torch made in Python: `toychip`, whose memory is that of the CPU and whose kernels are those of the CPU.

It is reached like a vendor's device: an import renames PrivateUse1, adds `torch.toychip` and registers kernels. Its
tensors are plain ones with storage and strides: DLPack hands memory over, and the type of device in the capsule is
what is exchanged. `TOYCHIP_LACKS=gelu,addmm` names operators that it has no kernel for and that fall back to the CPU.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_CPU, _EXTENSION = 1, 12  # kDLCPU and kDLExtDev of dlpack.h
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Module:
    """`torch.toychip`."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return os.environ.get("TOYCHIP_DEVICES") != "0"

    def device_count(self) -> int:
        return int(os.environ.get("TOYCHIP_DEVICES", "1"))

    def current_device(self) -> int:
        return 0

    def get_device_name(self, _device: Any = None) -> str:
        return "Toy Chip 1"

    def synchronize(self, _device: Any = None) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)


_setup_privateuseone_for_python_backend("toychip", _Module())


def _relabeled(tensor: torch.Tensor, device_type: int) -> torch.Tensor:
    """The same memory as a tensor of another device."""
    capsule = torch._C._to_dlpack(tensor)
    # A DLTensor begins with a pointer to the data, then the type of device.
    ctypes.c_int32.from_address(_pointer_of(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)).value = device_type
    with torch.inference_mode(False):  # a view of a plain tensor must be plain, in inference mode, too
        return torch._C._from_dlpack(capsule)


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator with the CPU's kernel on the memory of the tensors."""
    originals: dict[int, torch.Tensor] = {}

    def as_cpu(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "toychip":
            return tensor
        seen = _relabeled(tensor, _CPU)
        originals[id(seen)] = tensor
        return seen

    args, kwargs = tree_map_only(torch.Tensor, as_cpu, (args, kwargs))
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if operator is torch.ops.aten._copy_from.default:
        args[1].copy_(args[0])
        return originals.get(id(args[1]), args[1])

    def as_toychip(tensor: torch.Tensor) -> torch.Tensor:
        return originals[id(tensor)] if id(tensor) in originals else _relabeled(tensor, _EXTENSION)

    return tree_map_only(torch.Tensor, as_toychip, operator(*args, **kwargs))


def _fall_back(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Do what PyTorch's fallback does: copy to the CPU, run, copy back."""
    args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (args, kwargs))
    return tree_map_only(torch.Tensor, lambda one: one.to("toychip"), operator(*args, **kwargs))


def _kernel(run: Callable[..., Any], operator: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: run(operator, *args, **kwargs)


_LACKS = {name for name in os.environ.get("TOYCHIP_LACKS", "").split(",") if name}
_OWN = {"_copy_from", "arange", "arange.start", "arange.start_step"}
_library = torch.library.Library("aten", "IMPL")
for _full in torch._C._dispatch_get_all_op_names():
    _space, _, _name = _full.partition("::")
    _packet, _, _overload = _name.partition(".")
    _is_ours = _name in _OWN or torch._C._dispatch_has_kernel_for_dispatch_key(_full, "CPU")
    if _space == "aten" and _is_ours and hasattr(torch.ops.aten, _packet):
        _operator = getattr(getattr(torch.ops.aten, _packet), _overload or "default")
        _library.impl(_name, _kernel(_fall_back if _name in _LACKS else _run, _operator), "PrivateUse1")
