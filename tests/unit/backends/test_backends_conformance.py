"""Our own backends pass the tests that third parties' have to pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_hfaccel.core.spec import Cell
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


class Converted(BackendConformance):
    """Of one layer, which takes half as long to convert as two.

    Tests of its own compare the tokens of the backend with torch's, which is more than the conformance asks for.
    """

    @classmethod
    def cell_of(cls, dtype: str = "", device: str = "") -> Cell:
        cell = super().cell_of(dtype, device)
        return replace(cell, model=replace(cell.model, dims={"num_hidden_layers": 1}))

    @pytest.mark.nightly
    def test_generation_gives_tokens_or_says_that_it_cannot(self, tmp_path: Path) -> None:
        super().test_generation_gives_tokens_or_says_that_it_cannot(tmp_path)


@pytest.mark.slow
class TestOpenVINO(Converted):
    device = "openvino:CPU"
    absent_device = "openvino:GPU.7"


@pytest.mark.slow
class TestOnnxRuntime(Converted):
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
