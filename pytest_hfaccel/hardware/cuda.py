"""NVIDIA GPUs: those the driver has, that the environment shows, and that this torch can use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.hidden import visible_devices
from pytest_hfaccel.hardware.nvml import NvidiaGpu, NvmlError, list_gpus, load_nvml
from pytest_hfaccel.hardware.torch_build import TorchBuild

_FIRST = Device("cuda", "0")


def probe_cuda(build: TorchBuild, nvml: Any = None, environ: Mapping[str, str] | None = None) -> list[Presence]:
    """Look for NVIDIA GPUs.

    Args:
        build: The installed torch.
        nvml: NVIDIA's management library; the installed one when not given.
        environ: Environment to read instead of `os.environ`.
    """
    nvml = nvml if nvml is not None else load_nvml()
    if nvml is None:
        return [Presence(_FIRST, False, "no NVIDIA driver (its library NVML is not installed)")]
    try:
        driver, gpus = list_gpus(nvml)
    except (NvmlError, AttributeError) as error:
        return [Presence(_FIRST, False, f"an NVIDIA driver is installed, but does not answer: {error}")]
    if not gpus:
        return [Presence(_FIRST, False, f"the NVIDIA driver {driver} has no GPU")]
    shown = visible_devices(
        len(gpus), ["CUDA_VISIBLE_DEVICES"], os.environ if environ is None else environ, [gpu.uuid for gpu in gpus]
    )
    unusable = build.why_not("cuda")
    here = f"an NVIDIA driver is here ({len(gpus)} GPU{'s' if len(gpus) > 1 else ''})"
    if unusable:
        return [Presence(_FIRST, False, f"{here}, but {unusable}", gpus[0].name, gpus[0].memory_bytes)]
    if not shown.order:
        return [Presence(_FIRST, False, f"{here}, but {shown.reason}", gpus[0].name, gpus[0].memory_bytes)]
    return [_presence(number, gpus[index], driver, shown.reason) for number, index in enumerate(shown.order)]


def _presence(number: int, gpu: NvidiaGpu, driver: str, hidden: str) -> Presence:
    details = {"driver": driver, "compute_capability": gpu.capability, "uuid": gpu.uuid}
    reason = f"NVIDIA driver {driver}" + (f"; {hidden}" if hidden else "")
    return Presence(Device("cuda", str(number)), True, reason, gpu.name, gpu.memory_bytes, details)
