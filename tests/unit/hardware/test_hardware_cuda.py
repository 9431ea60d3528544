"""NVIDIA GPUs, through a stand-in for the driver's library that fills the same C structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_hfaccel.hardware.nvidia import load_nvml, probe_cuda
from pytest_hfaccel.hardware.torch_build import TorchBuild
from pytest_hfaccel.hardware.visibility import visible_devices

CUDA_BUILD = TorchBuild("2.13.0+cu130", cuda="13.0")
CPU_BUILD = TorchBuild("2.13.0+cpu")
ROCM_BUILD = TorchBuild("2.13.0+rocm7.0", hip="7.0")


@dataclass
class Nvml:
    """Answers like libnvidia-ml: results go through pointers, the return value is a status."""

    names: tuple[str, ...] = ("NVIDIA H200", "NVIDIA L4")
    status: int = 0
    calls: list[str] = field(default_factory=list)

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVIDIA's name
        return self.status

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.calls.append("shutdown")
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _length: Any) -> int:  # noqa: N802
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 1  # a null pointer is no handle
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, _length: Any) -> int:  # noqa: N802
        text.value = self.names[handle.value - 1].encode()
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, _length: Any) -> int:  # noqa: N802
        text.value = f"GPU-{handle.value}abc".encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total = handle.value * 2**30
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, _handle: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = 9, 0
        return 0


def test_gpus_with_name_memory_and_driver() -> None:
    nvml = Nvml()
    first, second = probe_cuda(CUDA_BUILD, nvml, {})
    assert (first.device.id, first.present, first.name, first.memory_bytes) == ("cuda:0", True, "NVIDIA H200", 2**30)
    assert first.details == {"driver": "580.65.06", "compute_capability": "9.0", "uuid": "GPU-1abc"}
    assert (second.device.id, second.name) == ("cuda:1", "NVIDIA L4")
    assert nvml.calls == ["shutdown"]


@pytest.mark.parametrize("build", [CPU_BUILD, ROCM_BUILD])
def test_a_torch_without_cuda_is_the_reason(build: TorchBuild) -> None:
    (answer,) = probe_cuda(build, Nvml(), {})
    assert not answer.present
    assert "an NVIDIA driver is present (2 GPUs), but this torch" in answer.reason
    assert build.version in answer.reason
    assert "without CUDA" in answer.reason


def test_no_torch_at_all() -> None:
    (answer,) = probe_cuda(TorchBuild(), Nvml(), {})
    assert "torch is not installed" in answer.reason


def test_a_driver_that_does_not_answer() -> None:
    (answer,) = probe_cuda(CUDA_BUILD, Nvml(status=9), {})
    assert not answer.present
    assert "nvmlInit_v2 returned 9" in answer.reason


def test_a_driver_without_gpu() -> None:
    (answer,) = probe_cuda(CUDA_BUILD, Nvml(names=()), {})
    assert answer.reason == "the NVIDIA driver 580.65.06 has no GPU"


def test_an_environment_variable_renumbers() -> None:
    (only,) = probe_cuda(CUDA_BUILD, Nvml(), {"CUDA_VISIBLE_DEVICES": "1"})
    assert (only.device.id, only.name) == ("cuda:0", "NVIDIA L4")
    assert "CUDA_VISIBLE_DEVICES='1' shows 1 of 2" in only.reason


@pytest.mark.parametrize("value", ["", "-1", "7", "none"])
def test_an_environment_variable_hides(value: str) -> None:
    (answer,) = probe_cuda(CUDA_BUILD, Nvml(), {"CUDA_VISIBLE_DEVICES": value})
    assert not answer.present
    assert "CUDA_VISIBLE_DEVICES" in answer.reason


def test_an_environment_variable_invents_nothing() -> None:
    (answer,) = probe_cuda(CUDA_BUILD, Nvml(names=()), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert not answer.present


def test_no_library_on_systems_that_nvidia_has_left() -> None:
    assert load_nvml("darwin") is None


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("2,0", (2, 0)),
        ("0,9,1", (0,)),
        ("1,1", (1,)),
        ("GPU-b", (1,)),
        ("GPU-", ()),
        ("GPU-c,0", (2, 0)),
        (" 1 ", (1,)),
    ],
)
def test_lists_of_devices(value: str, order: tuple[int, ...]) -> None:
    assert visible_devices(3, ["X"], {"X": value}, ["GPU-a", "GPU-b", "GPU-c"]).order == order


def test_variables_apply_one_after_the_other() -> None:
    shown = visible_devices(4, ["OUTER", "INNER"], {"OUTER": "3,2", "INNER": "1"}, [])
    assert shown.order == (2,)
    assert shown.reason == "OUTER='3,2' shows 2 of 4; INNER='1' shows 1 of 2"
