"""ExecuTorch's files: what a program holds, which parts of it XNNPACK runs, and one of its weights made wrong."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_hfaccel.backends.exported import constants
from pytest_hfaccel.upstream.executorch import Layout, Subgraph, read_layout, read_subgraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_hfaccel.backends.base import WeightChange

    Array = NDArray[np.float32]

XNNPACK = "XNNPACK"
PORTABLE = "portable kernels"
"""Who runs what XNNPACK did not take: ExecuTorch's own kernels, on the CPU as well."""

_SHAPES_ONLY = ("executorch_prim::", "aten::sym_")
"""How the names of operators begin that compute with sizes, or view a tensor in another shape: no work of a model."""

_PRODUCTS = frozenset({"aten::addmm", "aten::bmm", "aten::convolution", "aten::linear", "aten::mm", "aten::baddbmm"})

_FP32 = 4
_ALIGNMENT = 128
"""Bytes that may follow a constant until the next one begins."""


@dataclass(frozen=True)
class Constant:
    """A constant in a file.

    Attributes:
        offset: Where it begins.
        size: Its bytes; in the segment of several constants, what is between it and the next one as well.
    """

    offset: int
    size: int


class Program:
    """A program in ExecuTorch's format (`.pte`).

    Args:
        content: Its file, or the content of one.

    Raises:
        RuntimeError: It is no such file.
    """

    def __init__(self, content: Path | bytes) -> None:
        self.path = content if isinstance(content, Path) else None
        if isinstance(content, Path):
            with content.open("rb") as file:
                self.data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            self.data = content
        try:
            self._layout: Layout = read_layout(self.data)
        except ValueError as error:
            raise RuntimeError(f"{self.path.name if self.path else 'the content'} is no program: {error}") from error

    @property
    def nbytes(self) -> int:
        """Bytes of the constants, and of the graphs that were handed to XNNPACK."""
        return sum(segment.size for segment in self._layout.program.segments)

    @property
    def planned_bytes(self) -> int:
        """Bytes that ExecuTorch sets aside when it loads the program, for the largest shapes it takes."""
        return sum(self._plan.non_const_buffer_sizes)

    @cached_property
    def portable(self) -> dict[str, int]:
        """How many operators of which name XNNPACK did not take, the most first; not those that compute with sizes."""
        names = [f"{operator.name}.{operator.overload}" for operator in self._plan.operators]
        calls = [
            names[instruction.instr_args.op_index]
            for chain in self._plan.chains
            for instruction in chain.instructions
            if hasattr(instruction.instr_args, "op_index")
        ]
        return dict(Counter(name for name in calls if not name.startswith(_SHAPES_ONLY)).most_common())

    @cached_property
    def xnnpack(self) -> dict[str, int]:
        """How many nodes of which kind XNNPACK runs, the most first."""
        return dict(Counter(node for graph in self._subgraphs for node in graph.nodes).most_common())

    @property
    def subgraphs(self) -> int:
        """In how many pieces XNNPACK has them."""
        return len(self._plan.delegates)

    def product_weights(self) -> dict[str, int]:
        """Count the elements of the weights that XNNPACK multiplies with, by its name of their type."""
        counts: Counter[str] = Counter()
        for graph in self._subgraphs:
            for _, kind, shape in graph.products:
                counts[kind] += prod(shape)
        return dict(counts)

    def portable_products(self) -> dict[str, int]:
        """Return the products among what XNNPACK did not take."""
        return {name: count for name, count in self.portable.items() if name.partition(".")[0] in _PRODUCTS}

    @property
    def follows_batch(self) -> bool:
        """Whether a program whose inputs may have several shapes says the same of some output."""
        plan = self._plan
        return not any(map(self._varies, plan.inputs)) or any(map(self._varies, plan.outputs))

    def holds_weight(self, weights: Mapping[str, Any], name: str) -> bool:
        """Return whether `edited` can change a weight."""
        return constants.holds_weight(
            name, weights, self._fp32_constants(weights[name].numel()), self._reader(weights[name])
        )

    def edited(self, weights: Mapping[str, Any], change: WeightChange) -> Program:
        """Return a copy with one weight changed; see `ExportedRuntime.edit_constant`."""
        weight = weights[change.parameter]
        candidates = self._fp32_constants(weight.numel())
        content = bytearray(self.data)
        for constant, values in constants.replacements_for(change, weights, candidates, self._reader(weight)):
            new = values.astype(np.float32).tobytes()
            content[constant.offset : constant.offset + len(new)] = new
        return Program(bytes(content))

    @property
    def _plan(self) -> Any:
        return self._layout.program.execution_plan[0]

    @cached_property
    def _subgraphs(self) -> list[Subgraph]:
        segments = self._layout.program.segments
        return [read_subgraph(self._bytes(segments[delegate.processed.index])) for delegate in self._plan.delegates]

    def _bytes(self, segment: Any) -> bytes:
        start = self._layout.segments + segment.offset
        return bytes(self.data[start : start + segment.size])

    def _varies(self, index: int) -> bool:
        return bool(getattr(self._plan.values[index].val, "shape_dynamism", 0))

    def _constants(self) -> Iterator[Constant]:
        """Yield XNNPACK's constants, each a segment with a name, and those of the others, all in one segment."""
        program, start = self._layout
        named = {entry.segment_index for entry in program.named_data or ()}
        yield from (Constant(start + program.segments[i].offset, program.segments[i].size) for i in sorted(named))
        if program.constant_segment and program.constant_segment.offsets:
            segment = program.segments[program.constant_segment.segment_index]
            offsets = sorted({*program.constant_segment.offsets, segment.size})
            for offset, following in pairwise(offsets):
                yield Constant(start + segment.offset + offset, following - offset)

    def _fp32_constants(self, elements: int) -> list[Constant]:
        return [each for each in self._constants() if 0 <= each.size - _FP32 * elements < _ALIGNMENT]

    def _reader(self, weight: Any) -> Any:
        def values(constant: Constant) -> Array:
            return np.frombuffer(self.data, np.float32, weight.numel(), constant.offset)

        return values
