"""ExecuTorch, seen in 1.5.1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from pytest_hfaccel.upstream import TORCHAO, RefCountedContext, errors_only


def quiet() -> AbstractContextManager[None]:
    """Silence ExecuTorch and what it imports: torchao's list of libraries that do not fit, deprecations of others."""
    return errors_only("executorch", *TORCHAO, "transformers")


@lru_cache(maxsize=1)
def runtime() -> Any:
    """Import ExecuTorch, which takes seconds, and return its `Runtime`."""
    with quiet():
        from executorch.runtime import Runtime

        return Runtime.get()


def use_threads(number: int) -> None:
    """Have XNNPACK compute with that many threads. The only switch is private, and must not be used during a run."""
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != number:
        portable_lib._unsafe_reset_threadpool(number)


def executorch_runner(program: Any, metadata: Any) -> Callable[..., Any]:
    """Return transformers' runner of a program, which gives the class's `ModelOutput`.

    Args:
        program: `executorch.runtime.Program`.
        metadata: `ExportMetadata` of the conversion.
    """
    from transformers.exporters.runners.runner_executorch import ExecutorchModelRunner

    run: Callable[..., Any] = ExecutorchModelRunner(program, metadata)
    return run


class Layout(NamedTuple):
    """The structure of a `.pte` file.

    Attributes:
        program: `executorch.exir.schema.Program`.
        segments: Where the segments begin: their offsets count from here.
    """

    program: Any
    segments: int


def read_layout(data: Any) -> Layout:
    """Read the structure of a `.pte` file, without its constants. The public reader copies all of them.

    Args:
        data: The file's content: `bytes`, or a map of it.

    Raises:
        ValueError: It is no such file.
    """
    from executorch.exir._serialize._program import _flatbuffer_to_program, _get_extended_header

    header = _get_extended_header(data[:64])
    if header is None:
        raise ValueError("it has no header of ExecuTorch")
    try:
        return Layout(_flatbuffer_to_program(data[: header.program_size]), header.segment_base_offset)
    except Exception as error:  # struct's and numpy's, of no common class
        raise ValueError(f"its structure cannot be read: {error}") from error


class Subgraph(NamedTuple):
    """A part of a program that XNNPACK runs.

    Attributes:
        nodes: The kind of each node, e.g. `FullyConnected`.
        products: The kind of each product with weights, and the type (`fp32`) and the shape of the weights.
    """

    nodes: list[str]
    products: list[tuple[str, str, tuple[int, ...]]]


_WEIGHTS = {"FullyConnected": 1, "Conv2d": 16, "DepthwiseConv2d": 16, "ConvTranspose2d": 16}
"""Which field of these nodes names the weights, in the tables of `schema.fbs`."""


def read_subgraph(data: bytes) -> Subgraph:
    """Read what XNNPACK was handed: a header and a flatbuffer. ExecuTorch has no reader of it in Python.

    Args:
        data: The delegate's part of a `.pte` file.
    """
    from flatbuffers.table import Table

    offset = int.from_bytes(data[10:14], "little") if data[4:8] == b"XH00" else 0
    buffer = data[offset:]
    graph = Table(buffer, int.from_bytes(buffer[:4], "little"))
    kinds, types = _schema()
    values = {}
    for entry in _tables(graph, 2):
        value = _union(entry)
        if _number(entry, 0, "Uint8") == 2:  # a quantized value wraps another
            value = _table(value, 0)
        shape = tuple(_numbers(value, 2))
        values[_number(value, 6, "Uint32")] = types[_number(value, 0, "Int16")], shape
    nodes, products = [], []
    for entry in _tables(graph, 1):
        kind = kinds[_number(entry, 0, "Uint8") - 1]
        nodes.append(kind)
        if kind in _WEIGHTS:
            products.append((kind, *values[_number(_union(entry), _WEIGHTS[kind], "Uint32")]))
    return Subgraph(nodes, products)


@lru_cache(maxsize=1)
def _schema() -> tuple[list[str], dict[int, str]]:
    """Return the kinds of nodes, in order, and the types by number."""
    text = (files("executorch.backends.xnnpack.serialization") / "schema.fbs").read_text(encoding="utf-8")
    union = text.partition("union XNodeUnion {")[2].partition("}")[0]
    return re.findall(r"^\s*XNN(\w+)", union, re.MULTILINE), {
        int(number): name for name, number in re.findall(r"xnn_datatype_(\w+) = (\d+)", text)
    }


def _slot(table: Any, index: int) -> int:
    offset: int = table.Offset(4 + 2 * index)
    return offset


def _number(table: Any, index: int, kind: str) -> int:
    from flatbuffers import number_types

    offset = _slot(table, index)
    return int(table.Get(getattr(number_types, f"{kind}Flags"), table.Pos + offset)) if offset else 0


def _numbers(table: Any, index: int) -> Iterator[int]:
    from flatbuffers import number_types

    offset = _slot(table, index)
    if offset:
        start = table.Vector(offset)
        for position in range(table.VectorLen(offset)):
            yield int(table.Get(number_types.Uint32Flags, start + 4 * position))


def _tables(table: Any, index: int) -> Iterator[Any]:
    from flatbuffers.table import Table

    offset = _slot(table, index)
    if offset:
        start = table.Vector(offset)
        for position in range(table.VectorLen(offset)):
            yield Table(table.Bytes, table.Indirect(start + 4 * position))


def _table(table: Any, index: int) -> Any:
    from flatbuffers.table import Table

    return Table(table.Bytes, table.Indirect(table.Pos + _slot(table, index)))


def _union(table: Any) -> Any:
    """Return the table in a union that is the first field; its type has the slot before it."""
    return _table(table, 1)


def _retrace_changed_only(undo: ExitStack) -> None:
    from executorch.exir.pass_base import ExportPass, PassResult, _ExportPassBase

    right = _ExportPassBase.call
    steps = {name for each in (ExportPass, _ExportPassBase) for name, value in vars(each).items() if callable(value)}
    steps -= {"__init__", "call"}
    traced: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()

    def call(self: Any, graph_module: Any) -> Any:
        changes_nodes = any(getattr(type(self), name) is not getattr(ExportPass, name) for name in steps)
        if not changes_nodes and traced.get(graph_module) == _nodes(graph_module):
            return PassResult(graph_module, True)
        result = right(self, graph_module)
        traced[result.graph_module] = _nodes(result.graph_module)
        return result

    _ExportPassBase.call = call
    undo.callback(setattr, _ExportPassBase, "call", right)


def _nodes(graph_module: Any) -> list[Any]:
    """Return what a trace of a graph depends on, to be compared with later."""
    return [
        (node, node.op, node.target, node.args, node.kwargs, id(node.meta.get("val")))
        for node in graph_module.graph.nodes
    ]


retrace_changed_only = RefCountedContext(_retrace_changed_only)
"""`with retrace_changed_only:` has ExecuTorch's passes trace a graph again only where it has changed.

Most of its passes end with `super().call(graph)`, which computes the shapes of all nodes anew, also after they have
found nothing to change. XNNPACK has 17 passes for each of its parts, of which a tiny GPT-2 has 30. A graph that comes
from a trace, and has the same nodes with the same arguments and values since, is traced by no pass that leaves its
nodes as they are (one that overrides a step of the trace does not). The program is the same to the byte.
"""


def _decompose_once(undo: ExitStack) -> None:
    from executorch.exir.graph_module import contains_any_call_fn_target_op
    from torch.export import ExportedProgram

    right = ExportedProgram.run_decompositions
    decomposed: WeakSet[Any] = WeakSet()

    def run_decompositions(self: Any, decomp_table: Any = None, *args: Any, **kwargs: Any) -> Any:
        if decomp_table is not None:
            is_first, finds_nothing = not len(decomp_table), self in decomposed
            if is_first and _is_functional(self):
                return self
            if finds_nothing and not contains_any_call_fn_target_op(self.graph_module, decomp_table):
                return self
        result = right(self, decomp_table, *args, **kwargs)
        decomposed.add(result)
        return result

    ExportedProgram.run_decompositions = run_decompositions
    undo.callback(setattr, ExportedProgram, "run_decompositions", right)


def _is_functional(program: Any) -> bool:
    """Whether no operator of a captured program changes its arguments; unknown where it has graphs inside."""
    schemas = [getattr(node.target, "_schema", None) for node in program.graph.nodes if node.op == "call_function"]
    return not any(schema is not None and schema.is_mutable for schema in schemas) and not any(
        True for _ in program.graph_module.children()
    )


decompose_once = RefCountedContext(_decompose_once)
"""`with decompose_once:` has `to_edge_transform_and_lower` decompose a program once, not three times.

With XNNPACK it traces the whole program anew to make it functional, to decompose what XNNPACK does not want whole, and
to decompose what XNNPACK refused after a closer look. The second trace makes it functional, too; the first is left out
where no operator changes its arguments. The third is left out where nothing to decompose is left, as ExecuTorch itself
does for other partitioners. The program is the same to the byte.
"""


def is_manager(program: Any) -> bool:
    """Whether a program comes from the exporter, not from a file."""
    return hasattr(program, "write_to_file")
