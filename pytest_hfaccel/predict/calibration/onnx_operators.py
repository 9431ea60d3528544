"""Operators on runtimes of ONNX graphs: ONNX Runtime in this process, onnxruntime-web in a browser. Import it late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, Protocol

from pytest_hfaccel.core.errors import LoadError, OutOfMemory, first_line
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration.calibrating import OperatorTimer, median_seconds
from pytest_hfaccel.predict.calibration.onnx_graphs import (
    MOVING,
    NORMS,
    Numbers,
    OperatorGraph,
    attention,
    concat_halves,
    convolution,
    linear,
)
from pytest_hfaccel.predict.calibration.records import TimedOperator

_COLD_BYTES = 40 * 2**20
"""As many matrix products with weights of their own run side by side as fill this much: see `torch_operators`."""
_MOST_PRODUCTS = 4
_MOST_OPERATORS = 8
_MANY_NUMBERS = 1_000_000
"""As many small operators are in one graph as move this many numbers: one alone is lost in the time of the call."""


class GraphTimer(Protocol):
    """What runs graphs and times them."""

    device_name: str
    versions: dict[str, str]
    details: dict[str, Any]
    limit_s: float | None
    """Seconds that a run of one operator may take; what would take longer is left out."""

    def seconds(self, model: Any, spreads: list[float] | None = None) -> float:
        """Return the median time of a graph (`OperatorGraph.model`), called as the backend calls models.

        Args:
            model: An `onnx.ModelProto`.
            spreads: As that of `median_seconds`.
        """

    def close(self) -> None:
        """Give back what it holds."""


class OnnxOperators(OperatorTimer):
    """Times operators on a runtime of ONNX graphs.

    Each graph computes its tensors from one number, so that they lie where the runtime keeps what is between two
    operators. What is left when the time of a graph without the operator is subtracted is the operator's.
    """

    gathered = 4

    def __init__(self, timer: GraphTimer, dtype: str) -> None:
        super().__init__(dtype)
        self._timer = timer
        self._numbers = Numbers()
        self._call = 0.0
        self._of_sources: dict[int, float] = {}
        self._pace: dict[str, tuple[int, float]] = {}
        self._left_out: list[str] = []

    def facts(self, note: Callable[[str], None]) -> dict[str, Any]:
        """Measure everything; a session has neither views nor Python between its operators."""
        try:
            self._call = self._call_seconds()
            operators = tuple(self.measure(note))
            overheads = {"call_seconds": self._call_seconds(), "view_seconds": 0.0, "module_seconds": 0.0}
        finally:
            self._timer.close()
        return {
            "device_name": self._timer.device_name,
            "versions": self._timer.versions,
            "operators": operators,
            "details": {**self._timer.details, **({"left_out": self._left_out} if self._left_out else {})},
            **overheads,
        }

    def _timed(
        self, kind: str, size: tuple[int, ...], time: Callable[[], float], flops: int, numbers: int
    ) -> Iterator[TimedOperator]:
        """Yield an operator, unless it takes too long at the pace of smaller ones, or the runtime cannot hold it.

        The first one of each kind is always timed: rates and times of a kind need one at least.
        """
        work, (_, pace) = flops or numbers, self._pace.get(kind, (0, 0.0))
        if pace and self._timer.limit_s is not None and work * pace > self._timer.limit_s:
            self._left_out.append(f"{kind} {size}: it would take {work * pace:.0f} s")
            return
        try:
            (timed,) = super()._timed(kind, size, time, flops, numbers)
        except (LoadError, OutOfMemory) as error:
            if not pace:
                raise
            self._left_out.append(f"{kind} {size}: {first_line(error)}")
            return
        if work > self._pace.get(kind, (0, 0.0))[0]:
            self._pace[kind] = (work, timed.seconds / work)
        yield timed

    def _call_seconds(self) -> float:
        """Return the seconds of a graph that computes next to nothing."""
        graph = OperatorGraph(self._numbers)
        return self._timer.seconds(graph.model(graph.source(1), 1))

    def _linear(self, rows: int, columns: int, depth: int) -> float:
        copies = max(1, min(_MOST_PRODUCTS, _COLD_BYTES // (4 * columns * depth)))
        return self._time(
            [(rows, depth)], lambda graph, x: [linear(graph, x[0], columns, depth) for _ in range(copies)], copies
        )

    def _bmm(self, rows: int, columns: int, depth: int, matrices: int) -> float:
        copies = _copies(matrices * (rows * depth + depth * columns + rows * columns))
        factors = [(matrices, depth, columns)] * copies
        return self._time(
            [(matrices, rows, depth), *factors],
            lambda graph, x: [graph.add("MatMul", x[0], each) for each in x[1:]],
            copies,
        )

    def _attention(self, queries: int, width: int, heads: int) -> float:
        copies = _copies(heads * queries * max(queries, 4 * width))
        shape = (heads, queries, width)

        def add(graph: OperatorGraph, x: Sequence[str]) -> list[str]:
            return [attention(graph, x[3 * i : 3 * i + 3], shape) for i in range(copies)]

        return self._time([(1, *shape)] * 3 * copies, add, copies)

    def _run_convolution(
        self, shape: tuple[int, ...], out: int, window: tuple[int, ...], groups: int, stride: int, padding: int
    ) -> float:
        copies = _copies(prod(shape))
        arguments = (shape[1], out, window, groups, stride, padding)
        return self._time(
            [shape], lambda graph, x: [convolution(graph, x[0], *arguments) for _ in range(copies)], copies
        )

    def _moving(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        copies = _copies(rows * width)
        yield (
            "copy",
            partial(
                self._time,
                [(rows, max(1, width // 2))],
                lambda graph, x: [concat_halves(graph, x[0], rows, width) for _ in range(copies)],
                copies,
            ),
        )
        for kind, add in MOVING.items():
            yield kind, partial(self._chain, add, rows, width, copies)

    def _norms(self, rows: int, width: int) -> Iterator[tuple[str, Callable[[], float]]]:
        for kind, add in NORMS.items():
            # A mean has another shape than what it is the mean of, so that nothing can follow it.
            yield kind, partial(self._chain, add, rows, width, 1 if kind == "mean" else _copies(rows * width))

    def _chain(self, add: Callable[[OperatorGraph, str, int, int], str], rows: int, width: int, length: int) -> float:
        """Return the seconds of an operator, of which several follow each other: equal ones of one input are merged."""

        def chained(graph: OperatorGraph, x: Sequence[str]) -> list[str]:
            value = x[0]
            for _ in range(length):
                value = add(graph, value, rows, width)
            return [value]

        return self._time([(rows, width)], chained, length)

    def _time(
        self,
        sources: Sequence[tuple[int, ...]],
        add: Callable[[OperatorGraph, Sequence[str]], Sequence[str]],
        operators: int,
    ) -> float:
        """Return the seconds of one of the operators that `add` makes of tensors of these shapes."""
        graph = OperatorGraph(self._numbers)
        results = add(graph, [graph.source(*shape) for shape in sources])
        seconds = self._timer.seconds(graph.model(graph.first_of(results), len(results)), self.spreads)
        besides = self._call + sum(self._source_seconds(prod(shape)) - self._call for shape in sources)
        return max(seconds - besides, seconds / 10) / operators

    def _source_seconds(self, numbers: int) -> float:
        """Return the seconds of a call whose graph computes one tensor and gives the first of its numbers."""
        if numbers not in self._of_sources:
            graph = OperatorGraph(self._numbers)
            self._of_sources[numbers] = self._timer.seconds(graph.model(graph.first_of([graph.source(numbers)]), 1))
        return self._of_sources[numbers]


def _copies(numbers: int) -> int:
    return max(1, min(_MOST_OPERATORS, _MANY_NUMBERS // numbers))


class OnnxRuntimeTimer:
    """Times graphs on ONNX Runtime's CPU provider, opened and called as the backend does both.

    Raises:
        BackendUnavailable: This ONNX Runtime does not have the device's provider.
    """

    def __init__(self, device: Device) -> None:
        import onnxruntime

        from pytest_hfaccel.backends.onnxruntime.sessions import require_device
        from pytest_hfaccel.hardware.cpu import read_cpu

        require_device(device)
        self._device = device
        self.versions = {"onnxruntime": str(onnxruntime.__version__)}
        self.device_name = read_cpu().name
        self.details: dict[str, Any] = {}
        self.limit_s: float | None = None

    def seconds(self, model: Any, spreads: list[float] | None = None) -> float:
        """Return the median time of a graph; see `GraphTimer`."""
        import onnx_ir
        import torch

        from pytest_hfaccel.backends.onnxruntime.backend import SessionGraph
        from pytest_hfaccel.backends.onnxruntime.sessions import open_session

        session = open_session(model.SerializeToString(), self._device)
        graph = SessionGraph(onnx_ir.from_proto(model), session, None, self._device)
        run, one = graph.runner(_metadata()), torch.ones(1)
        return median_seconds(lambda: run(s=one), spreads=spreads)

    def close(self) -> None:
        """Do nothing: sessions end with their graphs."""


def _metadata() -> Any:
    """Return what the exporter says of a model that returns `{"y": <tensor>}`."""
    from torch.utils import _pytree
    from transformers.exporters.metadata import ExportMetadata

    return ExportMetadata(out_spec=_pytree.treespec_dumps(_pytree.tree_structure({"y": 0})))
