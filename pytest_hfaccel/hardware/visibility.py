"""Devices hidden by environment variables such as `CUDA_VISIBLE_DEVICES`.

They can hide and reorder what the driver has. They cannot invent a device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.spec import Device


@dataclass(frozen=True)
class Visibility:
    """Which of the driver's devices a process sees, in the order in which it numbers them.

    Attributes:
        order: Indices of the driver's devices.
        reason: Which variable hides the others; empty when none does.
    """

    order: tuple[int, ...]
    reason: str = ""


def visibility_variables(kind: str) -> tuple[str, ...]:
    """Return the variables that hide and reorder the devices of a kind, outermost first."""
    torch = kind_named(kind).torch
    return () if torch is None else torch.visible_devices


_SAME_HARDWARE = {"onnxruntime:CUDA": "cuda", "onnxruntime:ROCm": "rocm"}
"""Devices of other runtimes that are GPUs which torch names, too."""


def physical_device(device: Device, environ: Mapping[str, str] | None = None, ids: Sequence[str] | None = None) -> str:
    """Return a name of a device that is the same in every process of the machine: `cuda:3` for a `cuda:0` that is it.

    Args:
        device: A device as this process calls it.
        environ: Environment to read instead of `os.environ`.
        ids: The devices' unique ids (`GPU-...`) in the driver's order; the driver is asked when not given.
    """
    environ = os.environ if environ is None else environ
    runtime_target, _, number = device.target.partition(".")
    kind = _SAME_HARDWARE.get(f"{device.kind}:{runtime_target}")
    index = (number or "0") if kind else device.target
    kind = kind or device.kind
    for name in reversed(visibility_variables(kind)):
        listed = [entry.strip() for entry in environ.get(name, "").split(",") if entry.strip()]
        if not index.isdecimal() or int(index) >= len(listed):
            continue
        index = listed[int(index)]
        if not index.isdecimal():
            known_ids = _unique_ids(kind) if ids is None else ids
            matches = [at for at, known in enumerate(known_ids) if known.startswith(index)]
            index = str(matches[0]) if len(matches) == 1 else index
    return f"{kind}:{index}" if index else kind


@cache
def _unique_ids(kind: str) -> tuple[str, ...]:
    """Ask the driver for the unique ids of its devices; empty where it has none."""
    from pytest_hfaccel.hardware import amd, nvidia  # which import this module

    if kind == "rocm":
        return tuple(gpu.unique_id for gpu in amd.list_gpus())
    nvml = nvidia.load_nvml() if kind == "cuda" else None
    try:
        return () if nvml is None else tuple(gpu.uuid for gpu in nvidia.list_gpus(nvml)[1])
    except (nvidia.NvmlError, AttributeError):
        return ()


def visible_devices(count: int, variables: Sequence[str], environ: Mapping[str, str], ids: Sequence[str]) -> Visibility:
    """Apply visibility variables one after the other, as the runtimes do.

    An entry that is neither an index in range nor the beginning of an id ends the list: the CUDA programming guide
    ("CUDA environment variables") says so, and HIP follows it.

    Args:
        count: Number of devices the driver has.
        variables: Names of the variables, outermost first.
        environ: The environment.
        ids: The devices' unique ids (`GPU-...`), by index; may be shorter than `count`.
    """
    order = tuple(range(count))
    reasons = []
    for name in variables:
        value = environ.get(name)
        if value is None:
            continue
        listed = _listed(value, order, ids)
        if listed != order:
            reasons.append(f"{name}={value!r} shows {len(listed)} of {len(order)}")
        order = listed
    return Visibility(order, "; ".join(reasons))


def _listed(value: str, order: tuple[int, ...], ids: Sequence[str]) -> tuple[int, ...]:
    listed: list[int] = []
    for entry in (part.strip() for part in value.split(",")):
        index = _index(entry, order, ids)
        if index is None or index in listed:
            break
        listed.append(index)
    return tuple(listed)


def _index(entry: str, order: tuple[int, ...], ids: Sequence[str]) -> int | None:
    if entry.isdigit():
        return order[int(entry)] if int(entry) < len(order) else None
    if not entry:
        return None
    matches = [index for index in order if index < len(ids) and ids[index].startswith(entry)]
    return matches[0] if len(matches) == 1 else None
