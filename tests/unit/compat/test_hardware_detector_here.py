"""The detector on this machine: what it costs, and that it agrees with the runtimes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel import hardware
from tests.harness import environment, run_python
from tests.unit.compat.hardware_fakes import Machine, seen

IMPORTED = """
import sys
import pytest_hfaccel.hardware
pytest_hfaccel.hardware.HardwareDetector()
print(sorted({"torch", "openvino", "transformers", "numpy", "psutil"} & set(sys.modules)))
"""

CACHED = """
import sys
from pytest_hfaccel.hardware import detect_available_hardware
found = detect_available_hardware(cache_file=sys.argv[1])
print(sorted({"torch", "openvino"} & set(sys.modules)), found["best_available"])
"""


def test_importing_and_making_a_detector_load_no_runtime() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_cached_detection_loads_no_runtime(tmp_path: Path) -> None:
    file = tmp_path / "hardware.json"
    command = ["-c", CACHED, str(file)]
    # Both in a process of their own: the tests' own has devices that other tests registered.
    first, second = (
        run_python(command, tmp_path, environment(tmp_path), new_process=imports).stdout for imports in (False, True)
    )
    assert second.split() == ["[]", first.split()[-1]]


@pytest.mark.slow
def test_the_functions_agree_with_the_runtimes() -> None:
    import torch

    found = hardware.detect_available_hardware()
    assert set(found) == {"hardware", "details", "errors", "best_available", "torch_device"}
    json.dumps(found)
    assert found["hardware"]["cpu"]
    assert found["hardware"]["cuda"] == (torch.cuda.is_available() and torch.version.hip is None)
    assert found["hardware"]["rocm"] == (torch.cuda.is_available() and torch.version.hip is not None)
    assert found["hardware"]["mps"] == torch.backends.mps.is_available()
    assert found["best_available"] == hardware.get_hardware_by_priority()
    assert found["torch_device"] == hardware.get_torch_device_with_priority()
    assert float(torch.ones(2, device=found["torch_device"]).sum()) == 2
    count = torch.cuda.device_count() if found["hardware"]["cuda"] else 0
    assert hardware.get_cuda_details()["device_count"] == count


@pytest.mark.slow
def test_the_priority_list_and_the_index_count() -> None:
    found = hardware.detect_available_hardware(priority_list=[hardware.CPU, hardware.CUDA], preferred_device_index=3)
    assert (found["best_available"], found["torch_device"]) == ("cpu", "cpu")


@pytest.mark.slow
def test_comprehensive_checks() -> None:
    from pytest_hfaccel.hardware.cpu import read_cpu

    found = hardware.detect_hardware_with_comprehensive_checks()
    json.dumps(found)
    assert {kind for kind in hardware.HARDWARE_TYPES if found[kind]} >= {"cpu"}
    assert found["system"]["platform"] == platform.system()
    assert found["system"]["cpu_count"] == read_cpu().cores
    assert 0 < found["system"]["available_memory"] <= found["system"]["total_memory"]
    assert found["system"]["total_memory"] == pytest.approx(read_cpu().memory_bytes / 2**30, abs=0.01)
    assert len(found["cuda_devices"]) == hardware.get_cuda_details()["device_count"]
    assert found["cpu_devices"][0]["dtypes"]["fp32"] is True
    for kind in hardware.HARDWARE_TYPES:
        assert bool(found[f"{kind}_devices"]) == found[kind]
        assert found[kind] or found["errors"][kind]


@pytest.mark.parametrize("name", ["cuda:1", "rocm:1", "xpu:0", "mps", "cpu"])
def test_torchs_names_are_those_of_the_backend(name: str) -> None:
    presence = seen(name)
    index = int(presence.device.target or 0)
    machine = Machine(*(seen(f"{presence.device.kind}:{i}") for i in range(2)) if index else (presence,))
    detector = hardware.HardwareDetector(probe=machine.probe, confirm=machine.confirm)
    assert detector.get_torch_device_with_priority([presence.device.kind], index) == presence.device.torch_name
