"""A provider that is not the CPU, where its plugin and a device are installed: Vulkan's software adapters will do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.core.spec import CPU
from pytest_hfaccel.hardware.cpu import read_cpu

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime_ep_webgpu", reason="onnxruntime-ep-webgpu is installed by nobody but who wants it")

LOAD = """
import json, sys
from pathlib import Path
from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntimeBackend
from pytest_hfaccel.core.errors import BackendUnavailable
from tests.unit.backends.backend_sources import make_cell, tiny_checkpoint

source = tiny_checkpoint(Path(sys.argv[1]), "BertModel", "feature-extraction")
try:
    loaded = OnnxRuntimeBackend().load(make_cell(source.spec, "onnxruntime:WebGPU", sys.argv[2]), source)
except BackendUnavailable as error:
    print(json.dumps({"unavailable": error.message}))
else:
    error = 0.0
    for name, tensor in loaded.forward(source.sample().forward).items():
        expected = source.torch_model("fp32")(**source.sample().forward)[name]
        error = max(error, float((tensor - expected).norm() / expected.norm()))
    print(json.dumps({**loaded.placement.to_json(), "error": error}))
"""


def loaded_on_webgpu(folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Load in a process of its own: a plugin stays in the process that it was registered in."""
    monkeypatch.setenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
    command = [sys.executable, "-c", LOAD, str(folder), dtype]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    answer: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    if "No supported adapters" in str(answer.get("unavailable")):
        pytest.skip("Vulkan has no adapter that this plugin takes")
    return answer


def test_a_software_adapter_is_emulated_and_its_fallbacks_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = loaded_on_webgpu(tmp_path, "fp32", monkeypatch)
    assert answer["implementation"] == "emulated"
    assert answer["actual_devices"] == ["WebGPU"]
    assert answer["error"] < 1e-5  # type: ignore[operator]
    details = answer["details"]
    assert isinstance(details, dict)
    assert details["nodes"]["WebGpuExecutionProvider"] > details["cpu_fallback"]["nodes"] > 0
    assert "MatMul" not in details["cpu_fallback"]["operators"]


def test_products_in_8_bits_fall_back_to_the_cpu_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = loaded_on_webgpu(tmp_path, "int8", monkeypatch)
    assert answer["actual_devices"] == ["WebGPU", "CPU"]
    assert isinstance(answer["details"], dict)
    assert "MatMulInteger" in answer["details"]["why_elsewhere"]


def test_the_probe_finds_it_where_a_software_adapter_is_allowed() -> None:
    from pytest_hfaccel.core.presence import Presence
    from pytest_hfaccel.hardware.onnx_runtime import probe_onnxruntime

    cpu = Presence(CPU, True, "", read_cpu().name)
    found = probe_onnxruntime(cpu, environ={"ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"})
    (webgpu,) = [each for each in found if each.device.target == "WebGPU"]
    assert webgpu.present
    assert "emulated" in webgpu.reason
