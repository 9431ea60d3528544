"""ONNX graphs as `graphs.RuntimeGraph`: all values as outputs, in ONNX Runtime or in a page; nodes in fp64 by onnx."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_hfaccel.backends.exported.onnx_programs import serialized
from pytest_hfaccel.explain.graphs import GraphNode
from pytest_hfaccel.explain.parts import taken_by
from pytest_hfaccel.explain.torch_values import Array

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Device

_NARROW = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


class OnnxGraph:
    """See `graphs.RuntimeGraph`.

    Args:
        program: An `onnx_ir.Model` that fits into one file, as it is compiled.
        device: The device of ONNX Runtime.
    """

    title = "ONNX Runtime"

    def __init__(self, program: Any, device: Device) -> None:
        self._model = onnx.load_from_string(serialized(program))
        self._device = device
        graph = self._model.graph
        for number, node in enumerate(graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        self._protos = {node.name: node for node in graph.node}
        self.nodes: Sequence[GraphNode] = [_node(proto) for proto in graph.node]
        constants = {each.name for each in graph.initializer}
        self.inputs: Sequence[str] = [value.name for value in graph.input if value.name not in constants]
        self.outputs: Sequence[str] = [value.name for value in graph.output]

    @cached_property
    def constants(self) -> Mapping[str, Array]:
        """The initializers, and what is computed of nothing else."""
        found = {each.name: numpy_helper.to_array(each) for each in self._model.graph.initializer}
        fixed = set(found)
        computed = []
        for node in self.nodes:
            if all(not name or name in fixed for name in node.inputs):
                fixed.update(node.outputs)
                computed += [name for name in node.outputs if name]
        if computed:
            inputs = {value.name for value in self._model.graph.input}
            part = _without_inputs(self._model, computed, inputs)
            names = [value.name for value in part.graph.output]
            found.update(self._infer(part, {}, names))
        return found

    def run(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Run the graph with values made outputs; optimisations stay on, but nodes are not merged across outputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        have = set(self.outputs)
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
        wanted = [*self.outputs, *(name for name in names if name not in have)]
        return self._infer(model, feed, wanted)

    def run_exactly(self, node: GraphNode, feed: Mapping[str, Array]) -> list[Array]:
        """Run a node in fp64 by the reference implementation of the package onnx."""
        from onnx.reference import ReferenceEvaluator

        if node.narrows:
            return [feed[node.inputs[0]].astype(np.float64)]
        wide = {n: v.astype(np.float64) if np.issubdtype(v.dtype, np.floating) else v for n, v in feed.items()}
        model = self._part([node], wide, [name for name in node.outputs if name])
        return [np.asarray(each) for each in ReferenceEvaluator(model).run(None, wide)]

    def run_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Run some nodes alone on the device."""
        return self._infer(self._part(nodes, feed, outputs), feed, outputs)

    def write_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str], path: Path
    ) -> tuple[str, list[Path]]:
        """Write some nodes as an ONNX file beside a script."""
        file = path.with_suffix(".onnx")
        onnx.save(self._part(nodes, feed, outputs), str(file))
        from pytest_hfaccel.backends.onnxruntime.providers import provider_of

        provider = provider_of(self._device).name
        code = f"""\
import onnxruntime

title = f"onnxruntime {{onnxruntime.__version__}}, {provider}"
session = onnxruntime.InferenceSession(here / "{file.name}", providers=["{provider}"])
(got,) = session.run(None, {{each.name: data[each.name] for each in session.get_inputs()}})"""
        return code, [file]

    def _infer(self, model: onnx.ModelProto, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Run a model once; return its outputs by name, those that are no tensors left out."""
        from pytest_hfaccel.backends.onnxruntime.sessions import open_session

        session = open_session(model.SerializeToString(), self._device)
        taken = {each.name for each in session.get_inputs()}
        values = session.run(list(names), {name: value for name, value in feed.items() if name in taken})
        return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}

    def _part(self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str]) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in feed.items()
        ]
        fixed = [name for name in taken_by(nodes) if name not in feed]
        constants = [numpy_helper.from_array(np.asarray(self.constants[name]), name) for name in fixed]
        values = [helper.make_empty_tensor_value_info(name) for name in outputs]
        protos = [self._protos[node.name] for node in nodes]
        graph = helper.make_graph(protos, "part", inputs, values, constants)
        model = helper.make_model(graph, opset_imports=list(self._model.opset_import), functions=self._model.functions)
        model.ir_version = self._model.ir_version
        return model


class GraphInPage(OnnxGraph):
    """The same in a browser: each model is opened in the page, with the shapes of what it is fed.

    Args:
        program: As for `OnnxGraph`.
        runtime: The `BrowserRuntime` of the page.
    """

    title = "onnxruntime-web"

    def __init__(self, program: Any, runtime: Any) -> None:
        super().__init__(program, runtime.device)
        self._runtime = runtime

    def write_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str], path: Path
    ) -> tuple[str, list[Path]]:
        """Refuse.

        Raises:
            NotImplementedError: A script that opens a page would need this package.
        """
        raise NotImplementedError(f"{self._runtime.device} runs in a page, which a script alone does not have")

    def _infer(self, model: onnx.ModelProto, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        taken = [value for value in fixed.graph.input if value.name in feed]
        for value in taken:
            array = feed[value.name]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, array.shape))
        with tempfile.TemporaryDirectory(prefix="hfaccel-") as folder:
            file = Path(folder) / "model.onnx"
            onnx.save(fixed, str(file))
            session = self._runtime.open_session(file, "a part of the graph", {})
            try:
                found = self._runtime.run(
                    session, {value.name: np.ascontiguousarray(feed[value.name]) for value in taken}
                )
            finally:
                self._runtime.drop(session)
        return {name: np.array(found[name]) for name in names if name in found}


def _node(proto: onnx.NodeProto) -> GraphNode:
    inner = [name for each in proto.attribute if each.HasField("g") for name in _taken_from_outside(each.g)]
    plain = {each.name: helper.get_attribute_value(each) for each in proto.attribute if not each.HasField("g")}
    shown = {n: v.decode() if isinstance(v, bytes) else v for n, v in plain.items() if not isinstance(v, TensorProto)}
    attributes = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
    narrows = _NARROW.get(plain.get("to"), "") if proto.op_type == "Cast" else ""
    return GraphNode(proto.name, proto.op_type, (*proto.input, *inner), tuple(proto.output), attributes, narrows)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _taken_from_outside(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what a graph inside a node takes from the graph around it."""
    made = {each.name for each in (*graph.input, *graph.initializer)}
    for node in graph.node:
        inner = [name for each in node.attribute if each.HasField("g") for name in _taken_from_outside(each.g)]
        yield from (name for name in (*node.input, *inner) if name and name not in made)
        made.update(node.output)


def _without_inputs(model: onnx.ModelProto, outputs: Sequence[str], inputs: set[str]) -> onnx.ModelProto:
    """Return the part of a graph that depends on no input."""
    wanted, kept = set(outputs), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_node(node).inputs)
    constants = [each for each in model.graph.initializer if each.name in wanted and each.name not in inputs]
    values = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(kept[::-1], "constants", [], values, constants)
    part = helper.make_model(graph, opset_imports=list(model.opset_import), functions=model.functions)
    part.ir_version = model.ir_version
    return part
