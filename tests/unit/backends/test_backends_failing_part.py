"""The smallest part of a model that cannot be converted is named, with the line that was traced."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def _model(branches: bool) -> Any:
    import torch
    from transformers import BertConfig

    class Gate(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, *, scale: float) -> Any:
            if branches and x.sum() > 0:  # a branch that depends on values
                return x * scale
            return x - scale

    class Block(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense, self.gate = torch.nn.Linear(4, 4), Gate()

        def forward(self, pair: tuple[Any, Any]) -> Any:
            return self.gate(self.dense(pair[0]), scale=2.0) + pair[1]

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.config = BertConfig()
            self.blocks = torch.nn.ModuleList([torch.nn.Identity(), Block()])

        def forward(self, x: Any) -> Any:
            return self.blocks[1]((self.blocks[0](x), x))

    return Model(), {"x": torch.ones(2, 4)}


def test_the_innermost_module_that_fails_alone() -> None:
    from pytest_hfaccel.backends.exported.failing_part import find_failing_part
    from pytest_hfaccel.backends.openvino.backend import OpenVINORuntime

    model, inputs = _model(branches=True)
    found = find_failing_part(OpenVINORuntime(), model, inputs)
    assert found.smallest is not None
    assert (found.smallest.name, found.smallest.kind, found.smallest.shapes) == ("blocks.1.gate", "Gate", [[2, 4]])
    assert "data-dependent" in found.smallest.error
    assert [each.name for each in found.path] == ["", "blocks.1"]
    assert found.converted == 2, "the identity and the dense layer"
    assert any("blocks.1.gate (Gate; 2x4) is the smallest part" in line for line in found.lines())


def test_a_model_that_can_be_converted() -> None:
    from pytest_hfaccel.backends.exported.failing_part import find_failing_part
    from pytest_hfaccel.backends.openvino.backend import OpenVINORuntime

    model, inputs = _model(branches=False)
    found = find_failing_part(OpenVINORuntime(), model, inputs)
    assert (found.smallest, found.converted) == (None, 1)
    late = find_failing_part(OpenVINORuntime(), model, inputs, seconds=-1.0)
    assert (late.smallest, late.not_tried) == (None, [""])


def test_a_part_that_is_converted_and_cannot_be_compiled() -> None:
    pytest.importorskip("onnxscript", reason="a conversion to ONNX needs it")
    pytest.importorskip("onnxruntime", reason="it compiles")
    from pytest_hfaccel.backends.exported.failing_part import find_failing_part
    from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntime
    from pytest_hfaccel.core.spec import Device

    model, inputs = _model(branches=False)
    # What onnxscript makes of it squeezes an axis of length 4 (docs/upstream/onnxscript_squeezes_longer_axes.py).
    model.blocks[1].gate.forward = lambda x, *, scale: x.squeeze(1) * scale
    runtime = OnnxRuntime()
    assert find_failing_part(runtime, model, inputs).smallest is None
    found = find_failing_part(runtime, model, inputs, device=Device.parse("onnxruntime:CPU"))
    assert found.smallest is not None
    assert (found.smallest.name, [each.name for each in found.path]) == ("blocks.1.gate", ["", "blocks.1"])
    assert "Squeeze" in found.smallest.error
    (line,) = found.lines()
    assert "is the smallest part that cannot be converted and compiled for onnxruntime:CPU: " in line


def test_what_the_exporter_to_onnx_lacks_is_named_once_without_colours() -> None:
    pytest.importorskip("onnxscript", reason="a conversion to ONNX needs it")
    import torch

    from pytest_hfaccel.backends.exported.capture import export_model
    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms
    from pytest_hfaccel.core.errors import LoadError

    class Runtime(OnnxPrograms):
        title = "ONNX"

    model, inputs = _model(branches=False)
    model.forward = lambda x: torch.special.bessel_j0(x)
    with pytest.raises(LoadError) as caught:
        export_model(Runtime(), model, inputs, static=False)  # type: ignore[arg-type]
    problem = r"Tried: varying, all, static: DispatchError: No ONNX function found for .*bessel_j0"
    assert re.search(problem, caught.value.message)
    assert "\x1b" not in caught.value.message


def test_a_part_that_fails_before_the_model_does_is_not_the_answer() -> None:
    pytest.importorskip("onnxscript", reason="a conversion to ONNX needs it")
    pytest.importorskip("onnxruntime", reason="it compiles")
    from pytest_hfaccel.backends.exported.failing_part import find_failing_part
    from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntime
    from pytest_hfaccel.core.spec import Device

    model, inputs = _model(branches=True)
    found = find_failing_part(OnnxRuntime(), model, inputs, device=Device.parse("onnxruntime:CPU"))
    assert (found.smallest, found.not_tried) == (None, ["", "blocks.1", "blocks.1.gate"])
    (line,) = found.lines()
    assert line.endswith("left out: the model itself, blocks.1, blocks.1.gate.")
