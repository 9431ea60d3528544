"""ONNX Runtime's providers: by files of the installed build and plugins, and by signs of their hardware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import CPU
from pytest_hfaccel.hardware.onnx_runtime import probe_onnxruntime

PROCESSOR = Presence(CPU, True, "8 cores", "AMD EPYC", 2**34, {"flags": ["AVX2"]})
Folders = Callable[[str], Path | None]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installed onnxruntime for the CPU and what converts to ONNX."""
    for package in ("onnxruntime/capi", "onnx", "onnxscript", "onnx_ir"):
        (tmp_path / package).mkdir(parents=True)
    (tmp_path / "sys").mkdir()
    return tmp_path


def answers(site: Path, **options: object) -> dict[str, Presence]:
    def folder_of(name: str) -> Path | None:
        return site / name if (site / name).is_dir() else None

    given: dict[str, object] = {"environ": {}, "system": "linux", "machine": "x86_64", **options}
    found = probe_onnxruntime(PROCESSOR, site, folder_of, **given)  # type: ignore[arg-type]
    return {each.device.target: each for each in found}


def test_the_plain_package_has_the_cpu_and_the_others_say_what_to_install(site: Path) -> None:
    found = answers(site)
    assert [target for target, answer in found.items() if answer.present] == ["CPU"]
    assert found["CPU"].name == "AMD EPYC"
    assert found["CPU"].details == {"flags": ["AVX2"]}
    assert found["CUDA"].reason.endswith("pip install onnxruntime-gpu")
    assert found["WebGPU"].reason.endswith("; pip install onnxruntime-ep-webgpu")


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript", "onnx_ir"])
def test_without_a_package_nothing_is_there_and_the_command_is_named(site: Path, package: str) -> None:
    (site / package).rename(site / "gone")
    found = answers(site)
    assert not any(answer.present for answer in found.values())
    assert found["CPU"].reason == f"{package} is not installed; pip install 'pytest-hfaccel[onnx]'"


def test_a_build_for_cuda_needs_a_gpu(site: Path) -> None:
    (site / "onnxruntime/capi/libonnxruntime_providers_cuda.so").touch()
    assert not answers(site)["CUDA"].present
    assert "NVIDIA" in answers(site)["CUDA"].reason


def test_the_webgpu_plugin_needs_a_gpu_or_leave_to_do_without(site: Path) -> None:
    plugin = site / "onnxruntime_ep_webgpu"
    plugin.mkdir()
    (plugin / "libonnxruntime_providers_webgpu.so").touch()
    assert "no GPU" in answers(site)["WebGPU"].reason
    software = answers(site, environ={"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"})["WebGPU"]
    assert software.present
    assert "emulated" in software.reason
    (site / "sys/class/drm/renderD128").mkdir(parents=True)
    assert answers(site)["WebGPU"].present


def test_intels_plugin_needs_something_of_intel(site: Path) -> None:
    plugin = site / "onnxruntime_ep_openvino"
    plugin.mkdir()
    (plugin / "libonnxruntime_providers_openvino_plugin.so").touch()
    assert answers(site)["OpenVINO"].reason.endswith("but no CPU, GPU or NPU of Intel")


def test_coreml_is_in_every_build_for_macos(site: Path) -> None:
    assert answers(site, system="darwin", machine="arm64")["CoreML"].present
    assert not answers(site)["CoreML"].present
