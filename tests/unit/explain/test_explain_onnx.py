"""Defects planted in an ONNX graph: the node and the module that are named are those that were changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_hfaccel.backends.browser.installed import probe_browsers
from pytest_hfaccel.cli import main
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.engine.session import Session
from pytest_hfaccel.explain import torch_values
from pytest_hfaccel.explain.graphs import GraphExplanation, RuntimeGraph, explain_graph, open_graph
from pytest_hfaccel.explain.reproduction import write_graph_reproduction
from pytest_hfaccel.hardware.cpu import Memory
from pytest_hfaccel.registry.resolution import resolve_model

onnx_ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.current_transformers

LAYER = "bert.encoder.layer.1"


def of_type(program: Any, operator: str, number: int) -> Any:
    return [node for node in program.graph if node.op_type == operator][number]


def value(program: Any, name: str, array: Any) -> Any:
    made = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(array, name=name))
    program.graph.initializers[name] = made
    return made


def product(program: Any, bias: str) -> Any:
    """Return the product that a bias is added to."""
    add = next(node for node in program.graph if any(each and each.name == bias for each in node.inputs))
    return next(each.producer() for each in add.inputs if each.producer() is not None)


def wrong_epsilon(program: Any) -> None:
    of_type(program, "LayerNormalization", 3).attributes["epsilon"] = onnx_ir.AttrFloat32("epsilon", 1e-3)


def transposed_weight(program: Any) -> None:
    weight = product(program, f"{LAYER}.attention.self.key.bias").inputs[1]
    weight.const_value = onnx_ir.tensor(weight.const_value.numpy().T.copy(), name=weight.name)


def permuted_heads(program: Any) -> None:
    weight = product(program, f"{LAYER}.attention.self.value.bias").inputs[1]
    weight.const_value = onnx_ir.tensor(np.roll(weight.const_value.numpy(), 16, 1).copy(), name=weight.name)


def wrong_axis(program: Any) -> None:
    of_type(program, "Softmax", 1).attributes["axis"] = onnx_ir.AttrInt64("axis", 2)


def dropped_mask(program: Any) -> None:
    softmax = of_type(program, "Softmax", 1)
    softmax.replace_input_with(0, softmax.inputs[0].producer().inputs[0])


def half_precision(program: Any) -> None:
    node = product(program, f"{LAYER}.attention.self.query.bias")
    for number in range(2):
        cast = onnx_ir.node("Cast", [node.inputs[number]], attributes={"to": 10})
        cast.outputs[0].name = f"half_{number}"
        program.graph.insert_before(node, cast)
        node.replace_input_with(number, cast.outputs[0])
    output = node.outputs[0]
    uses, output.type = list(output.uses()), None
    back = onnx_ir.node("Cast", [output], attributes={"to": 1})
    back.outputs[0].name = "full"
    program.graph.insert_after(node, back)
    for user, number in uses:
        user.replace_input_with(number, back.outputs[0])


def overflow(program: Any) -> None:
    node = product(program, f"{LAYER}.output.dense.bias")
    scaled = onnx_ir.node("Mul", [node.inputs[0], value(program, "big", np.float32(3e38))])
    twice = onnx_ir.node("Mul", [scaled.outputs[0], program.graph.initializers["big"]])
    scaled.outputs[0].name, twice.outputs[0].name = "large", "larger"
    program.graph.insert_before(node, [scaled, twice])
    node.replace_input_with(0, twice.outputs[0])


def shifted_positions(program: Any) -> None:
    table = "bert.embeddings.position_embeddings.weight"
    node = next(node for node in program.graph if any(each and each.name == table for each in node.inputs))
    shifted = onnx_ir.node("Add", [node.inputs[1], value(program, "one_more", np.int64(1))])
    shifted.outputs[0].name = "shifted"
    program.graph.insert_before(node, shifted)
    node.replace_input_with(1, shifted.outputs[0])


DEFECTS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "wrong epsilon": (wrong_epsilon, f"{LAYER}.attention.output.LayerNorm", "LayerNormalization"),
    "transposed weight": (transposed_weight, f"{LAYER}.attention.self.key", "MatMul"),
    "permuted heads": (permuted_heads, f"{LAYER}.attention.self.value", "MatMul"),
    "wrong axis of a softmax": (wrong_axis, f"{LAYER}.attention.self", "Softmax"),
    "dropped mask": (dropped_mask, f"{LAYER}.attention.self", "Softmax"),
    "half precision": (half_precision, f"{LAYER}.attention.self.query", "MatMul"),
    "infinity by overflow": (overflow, f"{LAYER}.output.dense", "Mul"),
    "positions off by one": (shifted_positions, "bert.embeddings.position_embeddings", "Gather"),
}

Explained = Callable[[Callable[[Any], None]], tuple[GraphExplanation, RuntimeGraph]]


@contextmanager
def explaining(device: str, cache: Path) -> Iterator[Explained]:
    """Explain tiny BERT's graph with a defect on a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFACCEL_CACHE", str(cache / "hfaccel"))
        name = "bert-base-uncased"
        wanted = {"models": (name,), "devices": (device,), "dtypes": ("fp32",), "weights": "tiny"}
        session = Session(RunConfig.from_values(wanted))
        cell = session.plan.cells(resolve_model(name, session.registry), session.store)[0]
        run = session.runner.open(cell)
        inputs = dict(run.source.sample().forward)
        loaded: Any = run.loaded
        program, tensors = loaded.program_and_feed(inputs)
        models = run.source.torch_model("fp64"), run.source.torch_model("fp32")

        def explain(plant: Callable[[Any], None]) -> tuple[GraphExplanation, RuntimeGraph]:
            changed = program.clone()
            changed.meta.pop("path", None)
            plant(changed)
            graph = open_graph(changed, cell.device, "fp32", "BertForMaskedLM", loaded.runtime)
            feed = {each: tensors[each].numpy() for each in graph.inputs}
            return explain_graph(graph, feed, models[0], models[1], inputs, error=1.0), graph

        yield explain
        run.close()
        session.close()


@pytest.fixture(scope="module")
def explained(shared_cache: Path) -> Iterator[Explained]:
    with explaining("onnxruntime:CPU", shared_cache) as explain:
        yield explain


@pytest.fixture(scope="module")
def explained_in_page(shared_cache: Path) -> Iterator[Explained]:
    absent = {each.device.kind: each.reason for each in probe_browsers() if not each.present}
    if "wasm" in absent:
        pytest.skip(f"no wasm: {absent['wasm']}")
    with explaining("wasm", shared_cache) as explain:
        yield explain


QUICK = ("permuted heads", "infinity by overflow")


@pytest.mark.parametrize(
    "defect", [pytest.param(each, marks=() if each in QUICK else pytest.mark.nightly) for each in DEFECTS]
)
def test_the_node_and_the_module_that_were_changed_are_named(defect: str, explained: Explained, tmp_path: Path) -> None:
    plant, module, operator = DEFECTS[defect]
    explanation, graph = explained(plant)
    found = explanation.guilty
    assert found is not None
    assert (found.module, found.operator) == (module, operator), found.reason
    assert found.place == "graph"
    script, about = write_graph_reproduction(explanation, graph, tmp_path, "bert-onnxruntimecpu-fp32")
    assert script is not None, about
    assert "pytest_hfaccel" not in script.read_text(encoding="utf-8")


@pytest.mark.nightly
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_node_is_named_in_a_browser(defect: str, explained_in_page: Explained, tmp_path: Path) -> None:
    plant, module, operator = DEFECTS[defect]
    explanation, graph = explained_in_page(plant)
    found = explanation.guilty
    assert found is not None
    assert (found.module, found.operator) == (module, operator), found.reason
    script, about = write_graph_reproduction(explanation, graph, tmp_path, "bert-wasm-fp32")
    assert script is None
    assert about.endswith("alone is wrong, but wasm runs in a page, which a script alone does not have")


def test_a_right_graph_has_no_wrong_node(explained: Explained) -> None:
    assert explained(lambda _: None)[0].guilty is None


def test_the_command_explains_a_right_graph(
    shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    assert main(["explain", "bert-base-uncased", "--weights", "tiny", "--device", "onnxruntime:CPU", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operator"] is None
    assert 0 < found["error"] < found["budget"]
    assert found["matched"] > 0.9 * found["values"]


def test_values_that_do_not_fit_into_the_free_memory_are_not_kept(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_values, "read_memory", lambda: Memory(2**34, 2**16))
    with pytest.raises(MemoryError, match="takes more memory than is free"):
        explained(lambda _: None)
