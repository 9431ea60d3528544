"""Defects planted in exporter, runtime, transformers and this package: each is put down to the one that has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.engine.session import Session
from pytest_hfaccel.explain import cause
from pytest_hfaccel.explain.cause import AGREES, DIFFERS, Verdict
from pytest_hfaccel.explain.experiments import Examination
from pytest_hfaccel.numerics.tolerances import Tolerance
from pytest_hfaccel.registry.resolution import resolve_model

MODEL = "bert-base-uncased"
LAYER = "bert.encoder.layer.1"

Examine = Callable[..., Verdict]


@pytest.fixture
def examine(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Make the experiments on a check of tiny BERT."""
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))

    def examine(device: str, dtype: str = "fp32", check: str = "parity") -> Verdict:
        wanted = {"models": (MODEL,), "devices": (device,), "dtypes": (dtype,), "weights": "tiny"}
        session = Session(RunConfig.from_values(wanted))
        try:
            cell = session.plan.cells(resolve_model(MODEL, session.registry), session.store)[0]
            return Examination(session.runner, cell, check).verdict()
        finally:
            session.close()

    return examine


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {each.name: each.outcome for each in verdict.experiments}


def with_wrong_epsilon(content: bytes) -> bytes:
    import onnx

    model = onnx.load_from_string(content)
    node = [node for node in model.graph.node if node.op_type == "LayerNormalization"][3]
    (epsilon,) = (each for each in node.attribute if each.name == "epsilon")
    epsilon.f = 1e-2
    return bytes(model.SerializeToString())


def test_a_right_cell_is_not_explained(examine: Examine) -> None:
    verdict = examine("cpu")
    assert (verdict.cause, verdict.is_failure) == ("undecided", False)
    assert outcomes(verdict) == {cause.AGAIN: AGREES}


@pytest.mark.nightly
def test_a_wrong_graph_is_put_down_to_the_exporter(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_ir = pytest.importorskip("onnx_ir")
    pytest.importorskip("onnxruntime")
    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms, serialized

    read = OnnxPrograms.read

    def read_wrong(self: Any, path: Path) -> Any:
        import onnx

        return onnx_ir.from_proto(onnx.load_from_string(with_wrong_epsilon(serialized(read(self, path)))))

    monkeypatch.setattr(OnnxPrograms, "read", read_wrong)
    verdict = examine("onnxruntime:CPU")
    assert verdict.cause == "exporter", list(verdict.lines())
    found = outcomes(verdict)
    assert found[cause.CAPTURED] == AGREES, list(verdict.lines())
    assert found[cause.TORCH] == found[cause.PRODUCT] == AGREES
    assert found[cause.ALONE] == found[cause.INTERPRETED] == found[cause.UNOPTIMISED] == DIFFERS
    by_name = {each.name: each for each in verdict.experiments}
    assert (by_name[cause.CAPTURED].error or 1) < 1e-5 < (by_name[cause.INTERPRETED].error or 0)


@pytest.mark.current_transformers
@pytest.mark.parametrize(
    "always", [pytest.param(False, id="an optimisation"), pytest.param(True, id="a kernel", marks=pytest.mark.nightly)]
)
def test_a_wrong_result_of_onnx_runtime_is_put_down_to_it(
    always: bool, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = pytest.importorskip("onnxruntime")
    right = ort.InferenceSession

    def open_wrong(model: Any, options: Any = None, **arguments: Any) -> Any:
        content = Path(model).read_bytes() if isinstance(model, str) else model
        if isinstance(model, str):
            import onnx

            content = onnx.load(model).SerializeToString()
        off = options is not None and options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        is_model = b"LayerNormalization" in content
        return right(with_wrong_epsilon(content) if is_model and (always or not off) else model, options, **arguments)

    monkeypatch.setattr(ort, "InferenceSession", open_wrong)
    verdict = examine("onnxruntime:CPU")
    assert verdict.cause == "runtime", list(verdict.lines())
    found = outcomes(verdict)
    assert found[cause.ALONE] == DIFFERS
    assert found[cause.INTERPRETED] == AGREES
    assert found[cause.UNOPTIMISED] == (DIFFERS if always else AGREES)


@pytest.mark.current_transformers
@pytest.mark.parametrize("culprit", ["exporter", pytest.param("runtime", marks=pytest.mark.nightly)])
def test_a_graph_that_does_not_become_a_session(
    culprit: str, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ort = pytest.importorskip("onnxruntime")
    onnx_ir = pytest.importorskip("onnx_ir")
    from pytest_hfaccel.backends.exported.onnx_programs import OnnxPrograms

    convert, open_session = OnnxPrograms.convert, ort.InferenceSession

    def convert_wrongly(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
        exported = convert(self, model, *arguments, **options)
        node = next(node for node in exported.program.graph if node.op_type == "Softmax")
        node.attributes["axis"] = onnx_ir.AttrInt64("axis", 99)
        return exported

    def refuse(model: Any, *arguments: Any, **options: Any) -> Any:
        if b"LayerNormalization" in (Path(model).read_bytes() if isinstance(model, str) else model):
            raise RuntimeError("LayerNormalization is not implemented")
        return open_session(model, *arguments, **options)

    if culprit == "exporter":
        monkeypatch.setattr(OnnxPrograms, "convert", convert_wrongly)
    else:
        monkeypatch.setattr(ort, "InferenceSession", refuse)
    verdict = examine("onnxruntime:CPU", check="forward")
    assert verdict.cause == culprit, list(verdict.lines())
    found = outcomes(verdict)
    assert found[cause.VALID] == (DIFFERS if culprit == "exporter" else AGREES)
    assert found[cause.TORCH] == found[cause.PRODUCT] == AGREES


@pytest.mark.nightly
def test_a_program_that_is_captured_wrongly_is_put_down_to_the_exporter(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path))
    right = torch.export.export

    def export_wrong(model: Any, *arguments: Any, **options: Any) -> Any:
        model.get_submodule(f"{LAYER}.output.LayerNorm").eps = 1e-2
        return right(model, *arguments, **options)

    monkeypatch.setattr(torch.export, "export", export_wrong)
    verdict = examine("onnxruntime:CPU")
    assert verdict.cause == "exporter", list(verdict.lines())
    assert outcomes(verdict)[cause.CAPTURED] == DIFFERS


@pytest.mark.nightly
def test_wrong_inputs_of_ours_are_put_down_to_us(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from pytest_hfaccel.backends.exported.graphs import Graph

    right = Graph.feed

    def feed_wrong(self: Any, inputs: Any) -> Any:
        fed = right(self, inputs)
        return {**fed, "attention_mask": torch.ones_like(fed["attention_mask"])}

    monkeypatch.setattr(Graph, "feed", feed_wrong)
    verdict = examine("onnxruntime:CPU")
    assert verdict.cause == "ours", list(verdict.lines())
    assert outcomes(verdict)[cause.ALONE] == AGREES


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", "fp16"), pytest.param("openvino:CPU", "bf16", marks=pytest.mark.nightly)]
)
def test_an_error_that_the_dtype_must_cost_is_numerics(
    device: str, dtype: str, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Tolerance(rel_l2=1e-5, second_chance=False)
    monkeypatch.setattr("pytest_hfaccel.checks.outputs.tolerance_of", lambda _: narrow)
    verdict = examine(device, dtype)
    if not verdict.is_failure:  # no bf16 without AMX
        pytest.skip(verdict.because)
    assert verdict.cause == "numerics", list(verdict.lines())
    about = next(each.about for each in verdict.experiments if each.name == cause.BUDGET)
    assert f"times what {dtype} must cost" in about


def test_code_that_depends_on_the_dtype_is_put_down_to_transformers(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert import modeling_bert

    right = modeling_bert.BertIntermediate.forward

    def forward(self: Any, hidden_states: Any) -> Any:
        is_fp32 = hidden_states.dtype == torch.float32
        return right(self, hidden_states.bfloat16().float() if is_fp32 else hidden_states)

    monkeypatch.setattr(modeling_bert.BertIntermediate, "forward", forward)
    verdict = examine("cpu")
    assert verdict.cause == "transformers", list(verdict.lines())
    assert outcomes(verdict)[cause.TORCH] == DIFFERS


@pytest.mark.nightly
@pytest.mark.parametrize("culprit", ["exporter", "runtime"])
def test_openvino(culprit: str, examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    ov = pytest.importorskip("openvino")
    from pytest_hfaccel.backends.openvino.backend import OpenVINORuntime

    def wrong(program: Any) -> Any:
        """Change a weight, if the graph has one; parts of it that only move numbers have none."""
        constants = (each for each in program.get_ops() if each.get_type_name() == "Constant")
        large = [each for each in constants if each.get_element_type() == ov.Type.f32 and each.get_byte_size() > 1024]
        if large:
            values = np.array(large[0].data)
            values.reshape(-1)[: values.size // 2] += 2.0
            changed = ov.opset14.constant(values)
            for target in large[0].output(0).get_target_inputs():
                target.replace_source_output(changed.output(0))
        return program

    if culprit == "exporter":
        read = OpenVINORuntime.read
        monkeypatch.setattr(OpenVINORuntime, "read", lambda self, path: wrong(read(self, path)))
    else:
        compile_right = ov.Core.compile_model

        def compile_wrong(self: Any, model: Any, *arguments: Any, **options: Any) -> Any:
            is_probe = not isinstance(model, ov.Model) or model.get_friendly_name() == "probe"
            return compile_right(self, model if is_probe else wrong(model.clone()), *arguments, **options)

        monkeypatch.setattr(ov.Core, "compile_model", compile_wrong)
    verdict = examine("openvino:CPU")
    assert verdict.cause == culprit, list(verdict.lines())
    assert outcomes(verdict)[cause.INTERPRETED] == (DIFFERS if culprit == "exporter" else AGREES)


@pytest.mark.nightly
def test_the_command_says_the_cause_with_its_experiments(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    from transformers.models.bert import modeling_bert

    right = modeling_bert.BertIntermediate.forward

    def forward(self: Any, hidden_states: Any) -> Any:
        is_fp32 = hidden_states.dtype == torch.float32
        return right(self, hidden_states.bfloat16().float() if is_fp32 else hidden_states)

    monkeypatch.setattr(modeling_bert.BertIntermediate, "forward", forward)
    assert main(["explain", MODEL, "--device", "cpu", "--weights", "tiny", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["module"]["name"].endswith("intermediate")
    assert found["cause"]["cause"] == "transformers"
    assert {each["name"] for each in found["cause"]["experiments"]} >= {cause.AGAIN, cause.BUDGET, cause.TORCH}


@pytest.mark.current_transformers
def test_a_precision_that_is_not_here_is_no_failure_that_went_away(examine: Examine) -> None:
    pytest.importorskip("onnxruntime")
    verdict = examine("onnxruntime:CPU", "bf16")
    assert not verdict.is_failure
    assert verdict.because.startswith("parity is unavailable now: onnxruntime:CPU: the ONNX Runtime backend cannot run")
