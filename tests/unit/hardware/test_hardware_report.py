"""What a report of probes answers; torch's build, Apple's GPU, and ExecuTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.hardware.precisions import precision_support
from pytest_hfaccel.hardware.probe import probe_executorch, probe_mps
from pytest_hfaccel.hardware.torch_build import TorchBuild, installed_torch


def report(*there: str, absent: tuple[str, ...] = ()) -> HardwareReport:
    presences = [Presence(Device.parse(name), True, "here") for name in there]
    return HardwareReport((*presences, *(Presence(Device.parse(name), False, "gone") for name in absent)))


@pytest.mark.parametrize(
    ("there", "best"),
    [
        (("cpu", "openvino:CPU"), "cpu"),
        (("cpu", "openvino:CPU", "openvino:NPU"), "cpu"),
        (("cpu", "openvino:GPU", "openvino:CPU"), "openvino:GPU"),
        (("cpu", "mps"), "mps"),
        (("cpu", "xpu:0", "openvino:GPU"), "xpu:0"),
        (("cpu", "cuda:0", "cuda:1", "xpu:0"), "cuda:0"),
        (("cpu", "rocm:0"), "rocm:0"),
    ],
)
def test_the_best_device(there: tuple[str, ...], best: str) -> None:
    assert report(*there).best().id == best


def test_present_and_absent() -> None:
    found = report("cpu", "cuda:0", absent=("mps",))
    assert [device.id for device in found.present()] == ["cpu", "cuda:0"]
    assert [presence.device.id for presence in found.absent()] == ["mps"]


def test_find() -> None:
    found = report("cpu", "cuda:0", "openvino:CPU", "openvino:GPU.0", absent=("rocm:0",))

    def answer(name: str) -> tuple[bool, str]:
        presence = found.find(Device.parse(name))
        assert presence is not None
        return presence.present, presence.reason

    assert answer("cuda") == (True, "here")
    assert answer("openvino:GPU") == (True, "here")
    assert answer("openvino:AUTO") == (True, "chooses among OpenVINO's devices")
    assert answer("rocm:1") == (False, "gone")
    assert answer("cuda:3") == (False, "not among those found: cuda:0")
    assert found.find(Device("fake", "0")) is None


def test_json() -> None:
    data = report("cpu", absent=("mps",)).to_json()
    assert data["best"] == "cpu"
    assert [(entry["device"], entry["present"]) for entry in data["devices"]] == [("cpu", True), ("mps", False)]


VERSION = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '{version}'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cf30153c'
hip: Optional[str] = {hip}
xpu: Optional[str] = None
"""


@pytest.mark.parametrize(
    ("version", "cuda", "hip", "expected"),
    [
        ("2.13.0+cpu", "None", "None", TorchBuild("2.13.0+cpu")),
        ("2.13.0+cu130", "'13.0'", "None", TorchBuild("2.13.0+cu130", cuda="13.0")),
        ("2.13.0+rocm7.0", "None", "'7.0.1'", TorchBuild("2.13.0+rocm7.0", hip="7.0.1")),
    ],
)
def test_torch_build(tmp_path: Path, version: str, cuda: str, hip: str, expected: TorchBuild) -> None:
    (tmp_path / "version.py").write_text(VERSION.format(version=version, cuda=cuda, hip=hip))
    assert installed_torch(tmp_path) == expected


def test_no_torch(tmp_path: Path) -> None:
    assert installed_torch(tmp_path) == TorchBuild()
    assert TorchBuild().why_not("cuda") == "torch is not installed"


@pytest.mark.parametrize(
    ("system", "machine", "macos", "present", "reason"),
    [
        ("Darwin", "arm64", "15.2", True, "macOS 15.2"),
        ("Darwin", "arm64", "13.6", False, "older than 14"),
        ("Darwin", "x86_64", "15.2", False, "not Apple silicon"),
        ("Linux", "aarch64", "", False, "not macOS"),
    ],
)
def test_mps(system: str, machine: str, macos: str, present: bool, reason: str) -> None:
    (answer,) = probe_mps(TorchBuild("2.13.0"), system, machine, macos)
    assert answer.present is present
    assert reason in answer.reason


@pytest.mark.parametrize("installed", [True, False])
def test_executorch_runs_on_the_processor_where_it_is_installed(installed: bool) -> None:
    processor = Presence(CPU, True, "8 cores", "AMD EPYC", 2**34, {"flags": ["AVX2"], "cores": 8})
    (answer,) = probe_executorch(processor, lambda name: Path(name) if installed else None)
    assert (answer.device.id, answer.present) == ("executorch:XNNPACK", installed)
    if installed:
        assert (answer.name, answer.details) == ("AMD EPYC", {"flags": ["AVX2"]})
        assert precision_support(answer, "fp32").runs
        assert not precision_support(answer, "bf16").runs
    else:
        assert answer.reason.endswith("pip install 'pytest-hfaccel[executorch]'")
