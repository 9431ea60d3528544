"""Our own backends pass the tests that third parties' have to pass."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from pytest_hfaccel.testing import BackendConformance

pytestmark = pytest.mark.usefixtures("forked_processes")


class TestFake(BackendConformance):
    device = "fake:0"


@pytest.mark.slow
class TestCpu(BackendConformance):
    device = "cpu"


@pytest.mark.nightly
class TestCompiledByInductor(BackendConformance):
    device = "cpu+inductor"


@pytest.mark.nightly
class TestCompiledByOpenVINO(BackendConformance):
    device = "cpu+openvino"


@pytest.mark.slow
class TestOpenVINO(BackendConformance):
    device = "openvino:CPU"
    absent_device = "openvino:GPU.7"


@pytest.mark.slow
class TestOnnxRuntime(BackendConformance):
    device = "onnxruntime:CPU"
    absent_device = "onnxruntime:QNN"


@pytest.mark.nightly
class TestExecuTorch(BackendConformance):
    device = "executorch:XNNPACK"


class InBrowser(BackendConformance):
    absent_device: ClassVar[str] = ""

    def crash(self, loaded: Any) -> bool:
        loaded._runtime.page().browser.kill("the test ends it")
        return True


@pytest.mark.nightly
class TestWasm(InBrowser):
    device = "wasm"


@pytest.mark.nightly
class TestWebGPU(InBrowser):
    device = "webgpu"


@pytest.mark.nightly
class TestWebNN(InBrowser):
    device = "webnn"
