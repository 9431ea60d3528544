"""Intel's GPUs and NPUs, for torch (xpu) and for OpenVINO."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import CPU
from pytest_hfaccel.hardware.intel import probe_openvino, probe_xpu
from pytest_hfaccel.hardware.torch_build import TorchBuild

XPU_BUILD = TorchBuild("2.13.0+xpu", xpu="20250301")
PROCESSOR = Presence(CPU, True, "8 cores", "Intel(R) Core(TM) Ultra 7", 2**34)


def add(root: Path, node: str, vendor: str, device: str) -> None:
    folder = root / "sys/class" / node / "device"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "device").write_text(f"{device}\n")


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """An Intel GPU and NPU, and an NVIDIA GPU's render node, which is none of Intel's."""
    add(tmp_path, "drm/renderD128", "0x8086", "0x7d55")
    add(tmp_path, "drm/renderD129", "0x10de", "0x28a0")
    add(tmp_path, "accel/accel0", "0x8086", "0x7d1d")
    return tmp_path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The plugins of an installed openvino."""
    libs = tmp_path / "site/openvino/libs"
    libs.mkdir(parents=True)
    for device in ("cpu", "gpu", "npu"):
        (libs / f"libopenvino_intel_{device}_plugin.so").touch()
    return libs.parent


def everything(_library: str) -> bool:
    return True


def nothing(_library: str) -> bool:
    return False


def test_xpu_is_present(laptop: Path) -> None:
    (answer,) = probe_xpu(XPU_BUILD, laptop, everything, "linux")
    assert (answer.device.id, answer.present, answer.details) == ("xpu:0", True, {"pci_device": "0x7d55"})


def test_xpu_needs_its_loader(laptop: Path) -> None:
    (answer,) = probe_xpu(XPU_BUILD, laptop, nothing, "linux")
    assert not answer.present
    assert "1 Intel GPU is present, but Level Zero" in answer.reason


def test_xpu_needs_a_torch_built_for_it(laptop: Path) -> None:
    (answer,) = probe_xpu(TorchBuild("2.13.0+cpu"), laptop, everything, "linux")
    assert "is built without XPU" in answer.reason


def test_no_intel_gpu(tmp_path: Path) -> None:
    (answer,) = probe_xpu(XPU_BUILD, tmp_path, everything, "linux")
    assert answer.reason.startswith("no Intel GPU")


def test_xpu_on_windows_rests_on_the_driver() -> None:
    assert probe_xpu(XPU_BUILD, loads=everything, platform="win32")[0].present
    assert not probe_xpu(XPU_BUILD, loads=nothing, platform="win32")[0].present


def test_openvino_on_a_laptop(laptop: Path, package: Path) -> None:
    answers = probe_openvino(PROCESSOR, laptop, package, everything, "linux")
    assert [(a.device.id, a.present) for a in answers] == [
        ("openvino:CPU", True),
        ("openvino:GPU", True),
        ("openvino:NPU", True),
    ]
    assert answers[0].name == "Intel(R) Core(TM) Ultra 7"


def test_two_gpus_are_numbered(laptop: Path, package: Path) -> None:
    add(laptop, "drm/renderD130", "0x8086", "0x56a0")
    answers = probe_openvino(PROCESSOR, laptop, package, everything, "linux")
    assert [a.device.id for a in answers] == ["openvino:CPU", "openvino:GPU.0", "openvino:GPU.1", "openvino:NPU"]


def test_openvino_gpu_without_opencl(laptop: Path, package: Path) -> None:
    answers = probe_openvino(PROCESSOR, laptop, package, nothing, "linux")
    assert [a.present for a in answers] == [True, False, True]
    assert "OpenCL" in answers[1].reason


def test_openvino_without_the_plugin(laptop: Path, package: Path) -> None:
    (package / "libs/libopenvino_intel_npu_plugin.so").unlink()
    npu = probe_openvino(PROCESSOR, laptop, package, everything, "linux")[2]
    assert (npu.present, npu.reason) == (False, "an Intel NPU is present, but openvino has no NPU plugin")


def test_openvino_on_a_machine_with_a_cpu_only(tmp_path: Path, package: Path) -> None:
    answers = probe_openvino(PROCESSOR, tmp_path, package, everything, "linux")
    assert [a.present for a in answers] == [True, False, False]
