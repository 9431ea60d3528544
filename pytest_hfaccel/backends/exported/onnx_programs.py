"""ONNX graphs, made by transformers' exporter: what ONNX Runtime and the browsers share. Nothing here runs a graph.

A program is an `onnx_ir.Model`. A runtime of ONNX graphs derives from `OnnxPrograms` and adds `title`, `compile`,
`memory` and the rest of `ExportedRuntime`. All of them have the same name, so a model is converted once for all that
agree on whether its shapes may vary.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.backends.exported import constants
from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.upstream.onnxscript import rules_on_their_operator_only
from pytest_hfaccel.upstream.torch import keep_onnx_registry, no_cache_of_fake_operators
from pytest_hfaccel.upstream.transformers import cache_shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_hfaccel.backends.base import WeightChange

    Array = NDArray[np.float32]

PACKAGES = ("onnx", "onnxscript", "onnx_ir")
"""What a conversion needs, as it is imported."""

INSTALL = "pip install 'pytest-hfaccel[onnx]'"

_STATE = "pytest_hfaccel.state"
"""Key among a program's `metadata_props`."""

_BATCH = "batch"


def require_packages(device: str) -> None:
    """Make sure that models can be converted to ONNX here.

    Raises:
        BackendUnavailable: A package is not installed.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise BackendUnavailable(
            f"{device}: models are converted to ONNX first, and {', '.join(missing)} is not installed.",
            stage="convert",
            hint=f"{INSTALL} installs it.",
        )


@dataclass(frozen=True)
class State:
    """A tensor that a graph takes from its last run: part of a key-value cache.

    Attributes:
        input: Name of the graph's input.
        output: Name of the output that is its next value.
        shape: Before the first run; `batch` stands for the number of rows, 0 where the tensor grows.
        dtype: torch's name of its dtype.
    """

    input: str
    output: str
    shape: tuple[int | str, ...]
    dtype: str

    def initial(self, rows: int) -> torch.Tensor:
        """Return its value before the first run."""
        sizes = [rows if size == _BATCH else int(size) for size in self.shape]
        return torch.zeros(sizes, dtype=getattr(torch, self.dtype))


class OnnxPrograms:
    """The part of an `ExportedRuntime` that is about graphs, not about who runs them."""

    name = "onnx"
    packages: tuple[str, ...] = PACKAGES

    def convert(self, model: Any, inputs: Mapping[str, Any], options: Mapping[str, Any], *, stateful: bool) -> Any:
        """Trace and convert a model, all of it in fp32.

        ONNX has no state: with `stateful` the cache is among the inputs and outputs, and `state_of` tells which they
        are and how they begin.
        """
        from transformers.exporters import OnnxConfig, OnnxExporter

        # torch prints the steps of a conversion.
        silence = contextlib.redirect_stdout(io.StringIO())
        with (
            silence,
            keep_onnx_registry,
            rules_on_their_operator_only,
            no_cache_of_fake_operators(when=bool(options)),
        ):
            exported = OnnxExporter().export(model, dict(inputs), OnnxConfig(**options))
        _remove_traces_of_source(exported.program)
        if stateful:
            state = [vars(each) for each in _state(exported.program, inputs)]
            exported.program.metadata_props[_STATE] = json.dumps(state)
        return exported

    def read(self, path: Path) -> Any:
        """Read a graph; its weights stay in the file beside it until they are needed."""
        from transformers.exporters import OnnxExporter

        try:
            return OnnxExporter.load_program(path)
        except OSError:
            raise
        except Exception as error:  # protobuf's, of no common class
            raise RuntimeError(f"{path.name} is no ONNX graph: {error}") from error

    def write(self, program: Any, path: Path) -> None:
        """Write a graph, and its weights to `<path>.data`."""
        from transformers.exporters import OnnxExporter

        OnnxExporter.save_program(program, path)

    def holds_weight(self, program: Any, weights: Mapping[str, Any], name: str) -> bool:
        """Return whether `edit_constant` can change a weight."""
        return constants.holds_weight(name, weights, _in_fp32(program, weights[name].numel()), _values)

    def edit_constant(self, program: Any, weights: Mapping[str, Any], change: WeightChange) -> Any:
        """Return a copy of a graph with one weight changed; see `ExportedRuntime.edit_constant`."""
        import onnx_ir

        copy = program.clone()
        copy.meta.pop("path", None)  # the file has the weight as it was
        candidates = _in_fp32(copy, weights[change.parameter].numel())
        for value, values in constants.replacements_for(change, weights, candidates, _values):
            value.const_value = onnx_ir.tensor(values.astype("float32"), name=value.name)
        return copy


def file_of(program: Any) -> Path | None:
    """Return the file a graph was read from, its weights beside it; `None` where the graph has been changed since."""
    path = program.meta.get("path")
    return None if path is None else Path(path)


def serialized(program: Any) -> bytes:
    """Return a graph and its weights as one ONNX file. Protobuf takes up to 2 GiB.

    Raises:
        ValueError: It is larger.
    """
    import onnx_ir

    whole = program.clone()
    onnx_ir.external_data.load_to_model(whole)
    data: bytes = onnx_ir.to_proto(whole).SerializeToString()
    return data


def input_names(program: Any) -> list[str]:
    """Return the names of a graph's inputs, in order."""
    return [value.name for value in program.graph.inputs]


def follows_batch(program: Any) -> bool:
    """Whether a graph that takes any batch also returns it: not where the model's code loops over the rows."""
    takes_any = any(_first_is_open(value) for value in program.graph.inputs)
    return not takes_any or any(_first_is_open(value) for value in program.graph.outputs)


def constant_sizes(program: Any) -> dict[str, int]:
    """Return the bytes of each constant (initializer) by name: the weights, and what the converter computed of them."""
    return {value.name: int(value.const_value.nbytes) for value in _constants(program)}


def state_of(program: Any) -> list[State]:
    """Return what a graph that was converted with `stateful` takes from its last run."""
    saved = json.loads(program.metadata_props.get(_STATE, "[]"))
    return [State(entry["input"], entry["output"], tuple(entry["shape"]), entry["dtype"]) for entry in saved]


def _state(program: Any, inputs: Mapping[str, Any]) -> Iterator[State]:
    """Yield the parts of the cache: exporter and torch name them alike, with a prefix where a part is in and out."""
    graph = program.graph
    outputs = {value.name: value for value in graph.outputs}
    rows = inputs["input_ids"].shape[0]
    traced = cache_shapes(inputs)
    for value in graph.inputs:
        path = value.name.removeprefix("input.")
        if path not in traced:
            continue
        following = outputs.get(f"output.{path}") or outputs.get(path)
        if following is None:
            raise ValueError(f"the graph takes {value.name} and does not return it")
        shape: list[int | str] = []
        for axis, (size, then, at_trace) in enumerate(
            zip(_sizes(value), _sizes(following), traced[path].shape, strict=True)
        ):
            grows = size != then and then != str(at_trace)
            shape.append(_BATCH if axis == 0 and at_trace == rows else 0 if grows else int(at_trace))
        yield State(value.name, following.name, tuple(shape), str(traced[path].dtype).removeprefix("torch."))


def _sizes(value: Any) -> list[str]:
    return [str(size if isinstance(size, int) else size.value) for size in value.shape]


def _first_is_open(value: Any) -> bool:
    shape = value.shape
    return shape is None or (len(shape) > 0 and not isinstance(shape[0], int))


def _constants(program: Any) -> Iterator[Any]:
    for graph in program.graphs():
        yield from (value for value in graph.initializers.values() if value.const_value is not None)


def _in_fp32(program: Any, elements: int) -> list[Any]:
    return [
        value
        for value in _constants(program)
        if value.const_value.dtype.name == "FLOAT" and value.const_value.size == elements
    ]


def _values(value: Any) -> Array:
    values: Array = value.const_value.numpy()
    return values


def _remove_traces_of_source(program: Any) -> None:
    """Remove what torch notes about the source of each operator: most of a small graph's size, and paths of files."""
    for graph in program.graphs():
        for node in graph:
            node.doc_string = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
