"""Defects planted in OpenVINO graphs: the node and the module that are named are those that were changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.engine.session import Session
from pytest_hfaccel.explain.graphs import GraphExplanation, RuntimeGraph, explain_graph, open_graph
from pytest_hfaccel.explain.modules import Side, tensor_error
from pytest_hfaccel.explain.reproduction import write_graph_reproduction
from pytest_hfaccel.registry.resolution import resolve_model

ov = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset14")
pytestmark = pytest.mark.current_transformers


@dataclass(frozen=True)
class Places:
    """Where a model has what is made wrong.

    Attributes:
        norm: Number of the layer norm and its module.
        product: Number of the product with a square weight and its module.
        projection: That of the product that gives the values of an attention.
        attention: Number of the attention and its module.
        hidden: Number of the product whose input overflows, and its module.
        half: Number of the product in half precision, and its module.
        positions: The table of positions and its module.
    """

    norm: tuple[int, str]
    product: tuple[int, str]
    projection: tuple[int, str]
    attention: tuple[int, str]
    hidden: tuple[int, str]
    half: tuple[int, str]
    positions: str


PLACES = {
    "bert-base-uncased": Places(
        norm=(3, "bert.encoder.layer.1.attention.output.LayerNorm"),
        product=(7, "bert.encoder.layer.1.attention.self.key"),
        projection=(8, "bert.encoder.layer.1.attention.self.value"),
        attention=(1, "bert.encoder.layer.1.attention.self"),
        hidden=(11, "bert.encoder.layer.1.output.dense"),
        half=(6, "bert.encoder.layer.1.attention.self.query"),
        positions="bert.embeddings.position_embeddings",
    ),
    "gpt2": Places(
        norm=(3, "transformer.h.1.ln_2"),
        product=(5, "transformer.h.1.attn.c_proj"),
        projection=(4, "transformer.h.1.attn.c_attn"),
        attention=(1, "transformer.h.1.attn"),
        hidden=(7, "transformer.h.1.mlp.c_proj"),
        half=(6, "transformer.h.1.mlp.c_fc"),
        positions="transformer.wpe",
    ),
    "google/vit-base-patch16-224": Places(
        norm=(3, "vit.layers.1.layernorm_after"),
        product=(7, "vit.layers.1.attention.k_proj"),
        projection=(8, "vit.layers.1.attention.v_proj"),
        attention=(1, "vit.layers.1.attention"),
        hidden=(11, "vit.layers.1.mlp.fc2"),
        half=(6, "vit.layers.1.attention.q_proj"),
        positions="vit.embeddings",
    ),
}


def of_type(model: Any, kind: str, number: int) -> Any:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind][number]


def by_name(model: Any, name: str) -> Any:
    return next(node for node in model.get_ordered_ops() if node.get_friendly_name() == name)


def product(model: Any, number: int) -> Any:
    """Return a product with a weight."""
    products = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant"
    ]
    return products[number]


def give(node: Any, number: int, other: Any) -> None:
    """Give a node another input."""
    node.input(number).replace_source_output(other.output(0))


def change_weight(node: Any, change: Callable[[Any], Any]) -> None:
    give(node, 1, ops.constant(np.ascontiguousarray(change(node.input_value(1).get_node().data))))


def wrong_epsilon(model: Any, places: Places) -> None:
    of_type(model, "MVN", places.norm[0]).set_attribute("eps", 1e-3)


def transposed_weight(model: Any, places: Places) -> None:
    change_weight(product(model, places.product[0]), np.transpose)


def permuted_heads(model: Any, places: Places) -> None:
    change_weight(product(model, places.projection[0]), lambda weight: np.roll(weight, 16, 0))


def taken_apart(model: Any, number: int, axis: int, *, masked: bool) -> None:
    """Put the steps of an attention in its place."""
    whole = of_type(model, "ScaledDotProductAttention", number)
    query, key, value = (whole.input_value(each) for each in range(3))
    scale = np.float32(query.get_partial_shape()[3].get_length() ** -0.5)
    scores = ops.multiply(ops.matmul(query, key, False, True), ops.constant(scale))
    if masked:
        scores = ops.add(scores, whole.input_value(3))
    weights = ops.softmax(scores, axis)
    whole.output(0).replace(ops.matmul(weights, value, False, False).output(0))


def wrong_axis(model: Any, places: Places) -> None:
    taken_apart(model, places.attention[0], 2, masked=True)


def dropped_mask(model: Any, places: Places) -> None:
    whole = of_type(model, "ScaledDotProductAttention", places.attention[0])
    mask = ops.multiply(whole.input_value(3), ops.constant(np.float32(0)))
    give(whole, 3, mask)


def half_precision(model: Any, places: Places) -> None:
    node = product(model, places.half[0])
    users = list(node.output(0).get_target_inputs())
    give(node, 0, ops.convert(node.input_value(0), "f16"))
    give(node, 1, ops.convert(node.input_value(1), "f16"))
    back = ops.convert(node, "f32")
    for user in users:
        user.replace_source_output(back.output(0))


def overflow(model: Any, places: Places) -> None:
    node, big = product(model, places.hidden[0]), ops.constant(np.float32(3e38))
    give(node, 0, ops.multiply(ops.multiply(node.input_value(0), big), big))


def shifted_positions(model: Any, places: Places) -> None:
    if places.positions == ADDED:
        node = by_name(model, "add_17/aten.add.Tensor/Add")
        change_weight(node, lambda table: np.roll(table, 1, 1))
        return
    number = 2 if places.positions.startswith("bert") else 1
    node = by_name(model, f"embedding_{number}/aten.embedding.default/Gather")
    give(node, 1, ops.add(node.input_value(1), ops.constant(np.int32(1))))


DEFECTS: dict[str, tuple[Callable[[Any, Places], None], Callable[[Places], str], str]] = {
    "wrong epsilon": (wrong_epsilon, lambda places: places.norm[1], "MVN"),
    "transposed weight": (transposed_weight, lambda places: places.product[1], "MatMul"),
    "permuted heads": (permuted_heads, lambda places: places.projection[1], "MatMul"),
    "wrong axis of a softmax": (wrong_axis, lambda places: places.attention[1], "Softmax"),
    "dropped mask": (dropped_mask, lambda places: places.attention[1], "ScaledDotProductAttention"),
    "half precision": (half_precision, lambda places: places.half[1], "MatMul"),
    "infinity by overflow": (overflow, lambda places: places.hidden[1], "Multiply"),
    "positions off by one": (shifted_positions, lambda places: places.positions, "Gather"),
}
ADDED = "vit.embeddings"
"""Adds its whole table of positions, and looks nothing up in it."""

Explained = Callable[..., tuple[GraphExplanation, RuntimeGraph]]


@pytest.fixture(scope="module")
def explained(shared_cache: Path) -> Iterator[Explained]:
    """Explain a tiny model's graph with a defect."""
    opened: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as closing:
        patch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))

        def open_model(name: str) -> Any:
            wanted = {"models": (name,), "devices": ("openvino:CPU",), "dtypes": ("fp32",), "weights": "tiny"}
            session = Session(RunConfig.from_values(wanted))
            closing.callback(session.close)
            cell = session.plan.cells(resolve_model(name, session.registry), session.store)[0]
            run = session.runner.open(cell)
            closing.callback(run.close)
            inputs = dict(run.source.sample().forward)
            loaded: Any = run.loaded
            models = run.source.torch_model("fp64"), run.source.torch_model("fp32")
            return cell.device, inputs, *loaded.program_and_feed(inputs), models

        def explain(
            name: str, plant: Callable[[Any, Places], None], plugin: Callable[[Any], None] | None = None
        ) -> tuple[GraphExplanation, RuntimeGraph]:
            if name not in opened:
                opened[name] = open_model(name)
            device, inputs, program, tensors, models = opened[name]
            changed = program.clone()
            plant(changed, PLACES[name])
            changed.validate_nodes_and_infer_types()
            graph = open_graph(changed, device, "fp32", "")
            feed = {each: tensors[each].numpy() for each in graph.inputs}
            if plugin is not None:
                right = graph._infer  # type: ignore[attr-defined]

                def infer(model: Any, feed: Any) -> Any:
                    plugin(model)
                    return right(model, feed)

                patch.setattr(graph, "_infer", infer)
            got = torch.from_numpy(graph.run(feed, [])[graph.outputs[0]])
            with torch.no_grad():
                expected = models[0](**Side(models[0]).moved(inputs, "")).logits
            error = tensor_error(got, expected)
            return explain_graph(graph, feed, models[0], models[1], inputs, error), graph

        yield explain


NOT_THERE = {("google/vit-base-patch16-224", "dropped mask")}
QUICK = {("bert-base-uncased", "half precision")}
CASES = [
    pytest.param(name, defect, marks=() if (name, defect) in QUICK else pytest.mark.nightly)
    for name in PLACES
    for defect in DEFECTS
    if (name, defect) not in NOT_THERE
]


@pytest.mark.parametrize(("name", "defect"), CASES)
def test_the_node_and_the_module_that_were_changed_are_named(
    name: str, defect: str, explained: Explained, tmp_path: Path
) -> None:
    plant, module, operator = DEFECTS[defect]
    explanation, graph = explained(name, plant)
    assert explanation.error > explanation.budget
    found = explanation.guilty
    assert found is not None
    operator = "Add" if found.module == ADDED else operator
    assert (found.module, found.operator) == (module(PLACES[name]), operator), found.reason
    assert found.place == "graph"
    script, about = write_graph_reproduction(explanation, graph, tmp_path, f"{name}-openvinocpu-fp32")
    assert script is not None, about
    assert "pytest_hfaccel" not in script.read_text(encoding="utf-8")


def test_a_right_graph_has_no_wrong_node(explained: Explained) -> None:
    explanation, _ = explained("bert-base-uncased", lambda *_: None)
    assert explanation.error <= explanation.budget
    assert explanation.guilty is None
    assert explanation.matched > 0.9 * explanation.values


def merges_wrongly(model: Any) -> None:
    """Stand for a plugin that merges a sum with the activation behind it, and gets the activation wrong then."""
    for node in model.get_ordered_ops():
        if node.get_friendly_name() == "gelu_1/aten.gelu.default/Gelu":
            added = node.input_value(0)
            if added.get_node().get_type_name() == "Add" and len(added.get_target_inputs()) == 1:
                node.output(0).replace(ops.gelu(added, "tanh").output(0))


def test_nodes_that_are_wrong_only_together_are_named(explained: Explained, tmp_path: Path) -> None:
    explanation, graph = explained("bert-base-uncased", lambda *_: None, merges_wrongly)
    assert explanation.error > explanation.budget
    found = explanation.guilty
    assert found is not None
    assert found.node == "gelu_1/aten.gelu.default/Gelu"
    assert found.module == "bert.encoder.layer.1.intermediate.intermediate_act_fn"
    assert "together with linear_10/aten.linear.default/Add; each alone is right" in found.reason
    assert found.place == "runtime"
    # OpenVINO itself is right: in a process without that plugin there is nothing to see.
    script, about = write_graph_reproduction(explanation, graph, tmp_path, "bert-openvinocpu-fp32")
    assert script is None
    assert about.startswith("not reproduced alone: tried ")
    assert "a process of its own: " in about
    assert list(tmp_path.iterdir()) == []
