"""OpenVINO graphs as `graphs.RuntimeGraph`: all values as results of the model, and nodes in fp64 by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import torch
from openvino import opset14 as ops
from torch.nn import functional

from pytest_hfaccel.backends.openvino.backend import open_request
from pytest_hfaccel.backends.openvino.device import compile_options, core
from pytest_hfaccel.backends.openvino.precision import hint_of
from pytest_hfaccel.explain.graphs import GraphNode
from pytest_hfaccel.explain.torch_values import Array

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Device

_NARROW = {"f16": "float16", "bf16": "bfloat16"}
_SOURCES = frozenset({"Parameter", "Constant"})
_ENDS = frozenset({"Result", "Assign"})
_DEFAULTS = {"auto_broadcast": "numpy", "batch_dims": 0}
"""Attributes that nearly all nodes have and that say nothing."""


class OpenVINOGraph:
    """See `graphs.RuntimeGraph`. A value has its node's name, those after the first with their number behind it.

    Args:
        program: The `openvino.Model`, as it is compiled.
        device: OpenVINO's device.
        dtype: The precision to compute at.
    """

    title = "OpenVINO"

    def __init__(self, program: ov.Model, device: Device, dtype: str) -> None:
        self._model = program
        self._target = device.target
        self._options = compile_options(device, hint_of(dtype, device), torch.get_num_threads())
        self._ports: dict[str, tuple[int, int]] = {}
        names: dict[tuple[str, int], str] = {}
        self._order = {node.get_name(): number for number, node in enumerate(program.get_ordered_ops())}
        nodes: list[GraphNode] = []
        self._constants: dict[str, Any] = {}
        parameters: dict[str, str] = {}
        for number, node in enumerate(program.get_ordered_ops()):
            outputs = self._name_outputs(node, number, names)
            if node.get_type_name() == "Constant":
                self._constants[outputs[0]] = node
            elif node.get_type_name() == "Parameter":
                parameters[node.get_name()] = outputs[0]
            elif node.get_type_name() not in _ENDS:
                inputs = tuple(names[_key(port)] for port in node.inputs())
                nodes.append(_graph_node(node, outputs[0], inputs, outputs))
        self.nodes: Sequence[GraphNode] = nodes
        self.inputs: Sequence[str] = [parameters[each.get_name()] for each in program.get_parameters()]
        self.outputs: Sequence[str] = [names[_key(each.input(0))] for each in program.get_results()]

    def _name_outputs(self, node: Any, number: int, names: dict[tuple[str, int], str]) -> tuple[str, ...]:
        is_parameter = node.get_type_name() == "Parameter"
        given = node.output(0).get_names() if is_parameter and node.get_output_size() else ()
        base = min(given) if given else node.get_friendly_name()
        found = []
        for port in range(node.get_output_size()):
            name = base if port == 0 else f"{base}:{port}"
            name = name if name not in self._ports else f"{name}#{number}"
            self._ports[name] = (number, port)
            names[(node.get_name(), port)] = name
            found.append(name)
        return tuple(found)

    @cached_property
    def constants(self) -> Mapping[str, Array]:
        """The constants, and what is computed of nothing else."""
        found = {name: _array_of(node) for name, node in self._constants.items()}
        fixed = set(found)
        computed: list[str] = []
        for node in self.nodes:
            if node.inputs and fixed.issuperset(node.inputs):
                fixed.update(node.outputs)
                computed += node.outputs
        if computed:
            model = ov.Model([ops.result(port) for port in self._ports_of(self._model.clone(), computed)], [], "part")
            found.update(zip(computed, self._infer(model, {}), strict=True))
        return found

    def run(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Run the graph with values made results; the plugin merges nodes, but not across a result."""
        model = self._model.clone()
        have = set(self.outputs)
        added = [name for name in names if name not in have]
        ports = self._ports_of(model, added)
        model.add_results([ops.result(port) for port in ports])
        values = self._infer(model, feed)
        return dict(zip((*self.outputs, *added), values, strict=True))

    def run_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Run some nodes alone on the device."""
        values = self._infer(self._part(nodes, feed, outputs), feed)
        return dict(zip(outputs, values, strict=True))

    def write_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str], path: Path
    ) -> tuple[str, list[Path]]:
        """Write some nodes as a model of OpenVINO beside a script."""
        file = path.with_suffix(".xml")
        ov.save_model(self._part(nodes, feed, outputs), file, compress_to_fp16=False)
        options = {name: value for name, value in self._options.items() if name != "INFERENCE_NUM_THREADS"}
        code = f"""\
import openvino

title = f"openvino {{openvino.__version__}}, {self._target}"
core = openvino.Core()
compiled = core.compile_model(core.read_model(here / "{file.name}"), "{self._target}", {options!r})
request = compiled.create_infer_request()
request.start_async({{port.get_any_name(): data[port.get_any_name()] for port in compiled.inputs}})
request.wait()
got = request.get_output_tensor(0).data"""
        return code, [file, file.with_suffix(".bin")]

    def run_exactly(self, node: GraphNode, feed: Mapping[str, Array]) -> list[Array]:
        """Compute a node by torch in fp64, or by OpenVINO's reference implementation, which is no plugin's, in fp32.

        Raises:
            NotImplementedError: Neither knows the node.
        """
        inputs = [feed[name] for name in node.inputs]
        if node.narrows:
            return [inputs[0].astype(np.float64)]
        original = self._node(self._model, node.name)
        known = _EXACT.get(node.operator)
        if known is not None:
            with torch.no_grad():
                exact = known(original.get_attributes(), *map(_widened, inputs))
            return [np.asarray(exact.numpy())]
        results = [ov.Tensor(port.get_element_type(), ov.Shape()) for port in original.outputs()]
        if not original.evaluate(results, [ov.Tensor(np.ascontiguousarray(each)) for each in inputs]):
            raise NotImplementedError(node.operator)
        return [np.array(each.data) for each in results]

    def computes_exactly(self, node: GraphNode) -> bool:
        """Whether torch computes a node in fp64."""
        return bool(node.narrows) or node.operator in _EXACT

    def _node(self, model: ov.Model, name: str) -> Any:
        return model.get_ordered_ops()[self._ports[name][0]]

    def _ports_of(self, model: ov.Model, names: Sequence[str]) -> list[Any]:
        ordered = model.get_ordered_ops()
        return [ordered[number].output(port) for number, port in (self._ports[name] for name in names)]

    def _part(self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str]) -> ov.Model:
        """Return a model of some nodes; what is fed is a parameter of it, constants stay constants."""
        model = self._model.clone()
        ordered = model.get_ordered_ops()
        parameters = []
        kept = {ordered[self._ports[node.name][0]].get_name() for node in nodes}
        for name, value in feed.items():
            number, port = self._ports[name]
            output = ordered[number].output(port)
            parameter = ops.parameter(list(value.shape), output.get_element_type(), name=name)
            parameter.output(0).set_names({name})
            parameters.append(parameter)
            for target in output.get_target_inputs():
                if target.get_node().get_name() in kept:
                    target.replace_source_output(parameter.output(0))
        results = [ops.result(port) for port in self._ports_of_ordered(ordered, outputs)]
        return ov.Model(results, parameters, "part")

    def _ports_of_ordered(self, ordered: Sequence[Any], names: Sequence[str]) -> list[Any]:
        return [ordered[number].output(port) for number, port in (self._ports[name] for name in names)]

    def _infer(self, model: ov.Model, feed: Mapping[str, Array]) -> list[Array]:
        compiled = core().compile_model(model, self._target, self._options)
        request = open_request(compiled)
        names = {name for port in compiled.inputs for name in port.get_names()}
        found = request.infer({name: np.asarray(value, order="C") for name, value in feed.items() if name in names})
        return [np.array(found[port]) for port in compiled.outputs]


def _key(port: Any) -> tuple[str, int]:
    source = port.get_source_output()
    return source.get_node().get_name(), source.get_index()


def _array_of(node: Any) -> Array:
    array: Array = node.data
    return array


def _graph_node(node: Any, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> GraphNode:
    kind = node.get_type_name()
    attributes = node.get_attributes()
    shown = {
        key: value
        for key, value in attributes.items()
        if isinstance(value, (bool, int, float, str, list)) and _DEFAULTS.get(key) != value
    }
    text = ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())
    narrows = _NARROW.get(str(attributes.get("destination_type")), "") if kind == "Convert" else ""
    return GraphNode(name, kind, inputs, outputs, text, narrows)


def _widened(array: Array) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.double() if tensor.is_floating_point() else tensor


def _matmul(attributes: Mapping[str, Any], left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    left = left.mT if attributes["transpose_a"] and left.ndim > 1 else left
    return left @ (right.mT if attributes["transpose_b"] and right.ndim > 1 else right)


def _mvn(attributes: Mapping[str, Any], value: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    along = axes.reshape(-1).tolist()
    centered = value - value.mean(along, keepdim=True)
    if not attributes["normalize_variance"]:
        return centered
    variance = centered.square().mean(along, keepdim=True)
    if str(attributes["eps_mode"]).upper() == "INSIDE_SQRT":
        return centered / (variance + attributes["eps"]).sqrt()
    return centered / (variance.sqrt() + attributes["eps"])


def _gather(
    attributes: Mapping[str, Any], table: torch.Tensor, index: torch.Tensor, axis: torch.Tensor
) -> torch.Tensor:
    if attributes.get("batch_dims"):
        raise NotImplementedError("Gather with batch_dims")
    along = int(axis) % table.ndim
    index = torch.where(index < 0, index + table.shape[along], index).long()
    picked = table.index_select(along, index.reshape(-1))
    return picked.reshape(*table.shape[:along], *index.shape, *table.shape[along + 1 :])


def _attention(attributes: Mapping[str, Any], *inputs: torch.Tensor) -> torch.Tensor:
    query, key, value = inputs[:3]
    mask = inputs[3] if len(inputs) > 3 and inputs[3].ndim else None
    scale = float(inputs[4]) if len(inputs) > 4 else None
    causal = bool(attributes.get("causal"))
    return functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)


def _convolution(attributes: Mapping[str, Any], value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if str(attributes["auto_pad"]).upper() not in ("EXPLICIT", "VALID", "NOTSET"):
        raise NotImplementedError(f"Convolution with auto_pad {attributes['auto_pad']}")
    groups = 1
    if weight.ndim > value.ndim:  # of a GroupConvolution
        groups, weight = weight.shape[0], weight.flatten(0, 1)
    borders = list(zip(attributes["pads_begin"], attributes["pads_end"], strict=True))
    padded = functional.pad(value, [size for pair in reversed(borders) for size in pair])
    convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[value.ndim - 3]
    result: torch.Tensor = convolve(
        padded, weight, None, list(attributes["strides"]), 0, list(attributes["dilations"]), groups
    )
    return result


def _reduced(reduce: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(attributes: Mapping[str, Any], value: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
        return reduce(value, axes.reshape(-1).tolist(), keepdim=bool(attributes["keep_dims"]))

    return run


def _plain(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda _, *inputs: function(*inputs)


_EXACT: dict[str, Callable[..., torch.Tensor]] = {
    "Add": _plain(torch.add),
    "Abs": _plain(torch.abs),
    "Clamp": lambda attributes, value: value.clamp(attributes["min"], attributes["max"]),
    "Convert": _plain(lambda value: value),
    "Convolution": _convolution,
    "Cos": _plain(torch.cos),
    "Divide": _plain(torch.true_divide),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Gather": _gather,
    "Gelu": lambda attributes, value: functional.gelu(
        value, approximate="tanh" if str(attributes["approximation_mode"]).upper() == "TANH" else "none"
    ),
    "Log": _plain(torch.log),
    "GroupConvolution": _convolution,
    "MVN": _mvn,
    "MatMul": _matmul,
    "Maximum": _plain(torch.maximum),
    "Minimum": _plain(torch.minimum),
    "Multiply": _plain(torch.mul),
    "Negative": _plain(torch.neg),
    "Power": _plain(torch.pow),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Relu": _plain(torch.relu),
    "ScaledDotProductAttention": _attention,
    "Select": _plain(lambda condition, left, right: torch.where(condition.bool(), left, right)),
    "Sigmoid": _plain(torch.sigmoid),
    "Sin": _plain(torch.sin),
    "Softmax": lambda attributes, value: torch.softmax(value, int(attributes["axis"])),
    "Sqrt": _plain(torch.sqrt),
    "Subtract": _plain(torch.sub),
    "Swish": lambda _, value, *beta: value * torch.sigmoid(value * (beta[0] if beta else 1.0)),
    "Tanh": _plain(torch.tanh),
    "Transpose": _plain(lambda value, order: value.permute(order.tolist()) if order.numel() else value.mT),
}
"""What nodes compute, by torch; inputs that are floating-point are in fp64. Integers divide otherwise: not compared."""
