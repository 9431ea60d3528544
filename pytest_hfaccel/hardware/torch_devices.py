"""torch's names of devices, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.hardware.answers import present_of
from pytest_hfaccel.hardware.kinds import CUDA, MPS, ROCM, XPU

_INDEXED = {CUDA: "cuda", ROCM: "cuda", XPU: "xpu"}
"""Kinds whose devices torch numbers, and what it calls them: its ROCm builds call AMD's GPUs `cuda`."""


@dataclass(frozen=True)
class TorchDevice:
    """Where torch puts tensors for a kind of hardware.

    Attributes:
        name: For `torch.device`: `cuda:0`, `xpu:0`, `mps` or `cpu`.
        not_taken: Id of the device that was asked for and is not there; empty when it was taken.
        reason: Why it was not taken.
    """

    name: str
    not_taken: str = ""
    reason: str = ""


def torch_device_of(report: HardwareReport, kind: str, preferred_index: int = 0) -> TorchDevice:
    """Return torch's device for a kind of hardware.

    A model for OpenVINO or a browser stays on torch's CPU: their runtimes take its weights from there.

    Args:
        report: Confirmed devices.
        kind: A kind of hardware that is there.
        preferred_index: Which of its devices; the first one that is there if that one is not. Kinds with one device
            ignore it.
    """
    if kind == MPS:
        return TorchDevice("mps")
    found = [presence.device for presence in present_of(report, kind)]
    if kind not in _INDEXED or not found:
        return TorchDevice("cpu")
    wanted = f"{kind}:{preferred_index}"
    taken = next((device for device in found if device.id == wanted), found[0])
    name = f"{_INDEXED[kind]}:{taken.target}"
    if taken.id == wanted:
        return TorchDevice(name)
    here = ", ".join(device.id for device in found)
    return TorchDevice(name, wanted, f"not among those that are here ({here}); {taken.id} is taken instead")
