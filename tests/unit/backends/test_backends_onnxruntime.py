"""ONNX Runtime on the CPU: outputs, and precision and providers read back, also where they are not the asked ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.files import DamagedCacheWarning
from pytest_hfaccel.core.spec import Device
from tests.unit.backends.backend_sources import CountingSource, MadeUpSource, made_up_model, make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime", reason="onnx is an extra of this package")
pytest.importorskip("onnxscript", reason="onnx is an extra of this package")

CPU = Device.parse("onnxruntime:CPU")
CUDA = Device.parse("onnxruntime:CUDA")


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> Any:
    return CountingSource(tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation"))


@pytest.fixture(scope="module")
def loaded(gpt2: Any) -> Iterator[Any]:
    model = load(gpt2)
    yield model
    model.close()


def load(source: Any, dtype: str = "fp32") -> Any:
    from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend().load(make_cell(source.spec, "onnxruntime:CPU", dtype), source)


def relative_error(outputs: Any, source: Any, inputs: dict[str, Any]) -> float:
    with torch.no_grad():
        expected = source.torch_model("fp32")(**inputs).logits
    return float((outputs["logits"] - expected).norm() / expected.norm())


def test_outputs_are_those_of_torch_for_any_shape(loaded: Any, gpt2: Any) -> None:
    ids = gpt2.sample().forward["input_ids"]
    for rows, tokens in ((2, 8), (1, 5), (5, 1)):
        inputs = {"input_ids": ids[:1, :tokens].repeat(rows, 1), "attention_mask": torch.ones(rows, tokens).long()}
        assert relative_error(loaded.forward(inputs), gpt2, inputs) < 2e-6
    assert loaded.placement.details["graphs"] == 1


def test_what_runs_is_read_back(loaded: Any) -> None:
    placement = loaded.placement
    assert (placement.actual_devices, placement.effective_dtype, placement.implementation) == (("CPU",), "fp32", "real")
    assert list(placement.details["nodes"]) == ["CPUExecutionProvider"]
    assert placement.details["cpu_fallback"] == {"nodes": 0, "operators": {}}
    assert set(placement.details["product_weights"]) == {"FLOAT"}
    # Among the operators are those that ONNX Runtime's optimizations put in.
    assert any(name.startswith("com.microsoft.") for name in placement.details["operators"])
    assert loaded.nbytes > 400_000


@pytest.mark.parametrize("use_cache", [False, True])
def test_generation_gives_the_tokens_of_torch(loaded: Any, gpt2: Any, use_cache: bool) -> None:
    from pytest_hfaccel.backends.generation import generate_greedily

    prompts = gpt2.sample().generate
    expected = generate_greedily(gpt2.torch_model("fp32"), prompts, max_new_tokens=6, use_cache=use_cache)
    assert loaded.generate(prompts, max_new_tokens=6, use_cache=use_cache).tolist() == expected.tolist()
    # The second time begins with an empty cache again.
    assert loaded.generate(prompts, max_new_tokens=6, use_cache=use_cache).tolist() == expected.tolist()


def test_a_changed_weight_changes_the_output_and_only_inside_the_block(loaded: Any, gpt2: Any) -> None:
    inputs = gpt2.sample().forward
    before = loaded.forward(inputs)["logits"]
    with loaded.perturbed(WeightChange("transformer.h.0.attn.c_attn.weight", 5, 10.0)) as changed:
        assert float((changed.forward(inputs)["logits"] - before).norm() / before.norm()) > 1e-3
    assert torch.equal(loaded.forward(inputs)["logits"], before)


@pytest.mark.usefixtures("loaded")
def test_a_second_load_converts_nothing(gpt2: Any) -> None:
    loads = gpt2.torch_loads
    again = load(gpt2)
    assert again.timings["convert"] == 0.0
    assert again.placement.details["convert_cached"]
    assert gpt2.torch_loads == loads
    again.close()


def test_a_damaged_conversion_is_told_and_made_again(tmp_path: Path) -> None:
    def forward(self: Any, pixel_values: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.linear(pixel_values))

    model, inputs = made_up_model(forward, width=32), {"pixel_values": torch.randn(2, 3, 32)}
    source: Any = MadeUpSource(model, inputs, tmp_path)
    load(source).close()
    (weights,) = tmp_path.glob("onnx/*/model.onnx.data")
    content = bytearray(weights.read_bytes())
    content[1000:1100] = b"\xff" * 100
    weights.write_bytes(content)
    with pytest.warns(DamagedCacheWarning, match="damaged"):
        again = load(source)
    expected = model(**inputs).last_hidden_state
    assert float((again.forward(inputs)["last_hidden_state"] - expected).norm() / expected.norm()) < 2e-6
    again.close()


def test_int8_is_read_back_from_the_weights_of_products(gpt2: Any) -> None:
    model = load(gpt2, "int8")
    inputs = gpt2.sample().forward
    assert model.placement.effective_dtype == "int8"
    assert set(model.placement.details["product_weights"]) == {"UINT8"}
    assert 1e-4 < relative_error(model.forward(inputs), gpt2, inputs) < 0.1
    model.close()


def test_a_model_without_products_of_matrices_has_no_int8(tmp_path: Path) -> None:
    one_stage = {"depths": [1], "hidden_sizes": [16]}
    source = tiny_checkpoint(tmp_path, "ResNetModel", "image-feature-extraction", **one_stage)
    with pytest.raises(BackendUnavailable, match="no product of matrices"):
        load(source, "int8")


def test_half_precision_is_refused_before_anything_is_converted(tmp_path: Path) -> None:
    source: Any = SimpleNamespace(spec=SimpleNamespace(model_id="never", architecture="Never"), cache_dir=tmp_path)
    with pytest.raises(BackendUnavailable, match="would compute at fp32 without saying so"):
        load_cell(source, "fp16")
    with pytest.raises(BackendUnavailable, match="cannot run at bf16"):
        load_cell(source, "bf16")
    assert not list(tmp_path.iterdir())


def load_cell(source: Any, dtype: str) -> Any:
    from pytest_hfaccel.backends.onnxruntime.backend import OnnxRuntimeBackend

    cell: Any = SimpleNamespace(device=CPU, dtype=dtype)
    return OnnxRuntimeBackend().load(cell, source)


def test_an_error_of_a_run_is_a_runtime_error_and_the_next_run_works(loaded: Any, gpt2: Any) -> None:
    inputs = gpt2.sample().forward
    beyond = {**inputs, "input_ids": inputs["input_ids"] + 10**6}
    with pytest.raises(RuntimeError, match="out of data bounds"):
        loaded.forward(beyond)
    assert relative_error(loaded.forward(inputs), gpt2, inputs) < 2e-6


def test_a_provider_that_is_not_built_in_is_named_with_the_command() -> None:
    from pytest_hfaccel.backends.onnxruntime.sessions import require_device

    with pytest.raises(BackendUnavailable, match="has no CUDAExecutionProvider") as caught:
        require_device(CUDA)
    assert "pip install onnxruntime-gpu" in (caught.value.hint or "")


def test_a_session_that_leaves_the_provider_out_is_refused() -> None:
    """ONNX Runtime takes the CPU, with a warning, for a provider that it has not or cannot open."""
    from onnx import TensorProto, helper

    from pytest_hfaccel.backends.onnxruntime.sessions import open_session

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider out without saying so and would run on CPU"):
        open_session(model.SerializeToString(), CUDA)


def graph_on(*nodes: tuple[str, str], final: Any = None, device: Device = CUDA) -> Any:
    """Return a compiled graph whose session says that these nodes (provider, operator) ran."""
    import onnx_ir

    from pytest_hfaccel.backends.onnxruntime.backend import SessionGraph

    parts = [
        SimpleNamespace(
            ep_name=f"{provider}ExecutionProvider", get_nodes=lambda name=name: [SimpleNamespace(op_type=name)]
        )
        for provider, name in nodes
    ]
    session: Any = SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)
    program = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[]), ir_version=10)
    return SessionGraph(program, session, final, device)


def test_shapes_that_the_cpu_computes_are_counted_and_do_no_harm() -> None:
    graph = graph_on(("CUDA", "MatMul"), ("CUDA", "Add"), ("CPU", "Shape"), ("CPU", "Gather"))
    assert graph.nodes.counts == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 2}
    assert graph.fallback() == {"Shape": 1, "Gather": 1}
    assert graph.devices() == ("CUDA",)


def test_products_that_fall_back_to_the_cpu_make_it_one_of_the_devices() -> None:
    graph = graph_on(("CUDA", "Add"), ("CPU", "MatMul"), ("CPU", "MatMul"), ("CPU", "Shape"))
    assert graph.products_on_cpu() == {"MatMul": 2}
    assert set(graph.devices()) == {"CUDA", "CPU"}


def test_a_graph_that_is_on_the_cpu_altogether_is_nowhere_else() -> None:
    assert graph_on(("CPU", "Shape"), ("CPU", "Add")).devices() == ("CPU",)
    assert graph_on(("CPU", "MatMul"), device=CPU).devices() == ("CPU",)


def test_another_gpu_keeps_its_number() -> None:
    assert graph_on(("CUDA", "MatMul"), device=Device.parse("onnxruntime:cuda.1")).devices() == ("CUDA.1",)


def final_graph(*constants: tuple[str, int], operator: str = "MatMul") -> Any:
    """Return a graph that ran, with products whose weights are of some types."""
    from onnx import helper

    from pytest_hfaccel.backends.onnxruntime.precision import FinalGraph

    names = [f"w{index}" for index in range(len(constants))]
    tensors = [
        helper.make_tensor(name, kind, [4, 4], bytes(helper.tensor_dtype_to_np_dtype(kind).itemsize * 16), raw=True)
        for name, (_, kind) in zip(names, constants, strict=True)
    ]
    nodes = [
        helper.make_node(op or operator, ["x", name], [f"y{name}"])
        for name, (op, _) in zip(names, constants, strict=True)
    ]
    return FinalGraph(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)))


def test_the_dtype_is_that_of_the_weights_of_products() -> None:
    from onnx import TensorProto as T

    assert final_graph(("MatMul", T.FLOAT), ("Gemm", T.FLOAT)).dtype("fp32") == "fp32"
    assert final_graph(("MatMul", T.FLOAT)).dtype("fp16") == "fp32"
    assert final_graph(("MatMul", T.FLOAT16), ("Conv", T.FLOAT)).dtype("fp16") == "mixed"
    assert final_graph(("MatMulInteger", T.UINT8)).dtype("int8") == "int8"
    assert final_graph(("MatMulInteger", T.UINT8), ("MatMul", T.FLOAT)).dtype("int8") == "mixed"
    assert final_graph(("MatMul", T.FLOAT)).dtype("int8") == "FLOAT"
    assert final_graph(("MatMulInteger", T.UINT8)).dtype("fp32") == "int8"


def test_a_device_that_rounds_silently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product in TF32, as CUDA's provider computes it by default."""
    import numpy as np

    from pytest_hfaccel.backends.onnxruntime import precision

    class Rounding:
        def run(self, _outputs: Any, feed: dict[str, Any]) -> list[Any]:
            rounded = (feed["x"].view(np.int32) & ~0x1FFF).view(np.float32)
            return [rounded @ rounded]

    monkeypatch.setattr(precision, "open_session", lambda *_args, **_options: Rounding())
    precision.confirm_precision.cache_clear()
    # The provider of OpenVINO compiles, so no graph is read back.
    with pytest.raises(BackendUnavailable, match="computes at a lower precision without saying so"):
        precision.confirm_precision(Device.parse("onnxruntime:OpenVINO"), "fp32")
    precision.confirm_precision.cache_clear()
