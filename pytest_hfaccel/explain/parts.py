"""The smallest part of a graph that shows an error by itself: as few nodes, and as few rows, as still are wrong.

A part is run alone on the device with what its nodes got in the graph. Where the node that was named is right alone,
those before it are added, level by level: a runtime merges nodes, and what it merges it may get wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_hfaccel.explain.torch_values import Array, relative_error

if TYPE_CHECKING:
    from pytest_hfaccel.explain.graphs import GraphNode, RuntimeGraph

_LEVELS = 12
"""How many levels of nodes before the one that was named are added at most."""

_MOST_NODES = 64


@dataclass(frozen=True)
class Part:
    """Some nodes of a graph with what they get and what they should give.

    Attributes:
        nodes: In the order of the graph.
        feed: What they take that is not constant, by name.
        output: The value that is wrong.
        expected: What it should be, in fp64; `None` where it must only be free of NaN and infinity.
        origin: Where `expected` comes from.
        budget: The relative L2 error that is allowed.
    """

    nodes: tuple[GraphNode, ...]
    feed: Mapping[str, Array]
    output: str
    expected: Array | None
    origin: str
    budget: float

    def error_of(self, got: Array) -> float:
        """Return the relative L2 error of the output; without an expected one `inf` for NaN and infinity, else 0."""
        if self.expected is None:
            return 0.0 if np.isfinite(got[got != -np.inf]).all() else float("inf")
        return relative_error(got, self.expected)


@dataclass
class PartSearch:
    """Looks for the smallest part that is wrong alone.

    Args:
        graph: The graph on its device.
        values: What its nodes gave, by name.

    Attributes:
        tried: What was tried, in words.
    """

    graph: RuntimeGraph
    values: Mapping[str, Array]
    tried: list[str] = field(default_factory=list)
    _smallest: dict[str, Part | None] = field(default_factory=dict)

    def smallest(self, part: Part, levels: int = _LEVELS) -> Part | None:
        """Return the smallest part that is wrong alone, that grows out of one; `None` where none is.

        Args:
            part: Where to begin; its feed is taken from the graph's values.
            levels: How many levels of nodes before it may be added.
        """
        if part.output not in self._smallest:
            self._smallest[part.output] = self._search(part, levels)
        return self._smallest[part.output]

    def _search(self, part: Part, levels: int) -> Part | None:
        for nodes in self._growing(part.nodes, levels):
            candidate = self._of(part, nodes)
            if self._is_wrong(candidate, _names(nodes)):
                return self._with_fewer_rows(self._with_fewer_nodes(candidate))
        return None

    def _growing(self, nodes: Sequence[GraphNode], levels: int) -> Iterator[tuple[GraphNode, ...]]:
        chosen = {node.name for node in nodes}
        yield tuple(nodes)
        for _ in range(levels):
            taken = {name for node in self.graph.nodes if node.name in chosen for name in node.inputs}
            before = {node.name for node in self.graph.nodes if self._varies(node) and taken.intersection(node.outputs)}
            if before <= chosen or len(chosen | before) > _MOST_NODES:
                return
            chosen |= before
            yield tuple(node for node in self.graph.nodes if node.name in chosen)

    def _varies(self, node: GraphNode) -> bool:
        return any(name in self.values for name in node.outputs)

    def _of(self, part: Part, nodes: tuple[GraphNode, ...]) -> Part:
        feed = {name: self.values[name] for name in taken_by(nodes) if name in self.values}
        return replace(part, nodes=nodes, feed=feed)

    def _is_wrong(self, part: Part, words: str) -> bool:
        try:
            got = self.graph.run_alone(part.nodes, part.feed, [part.output])[part.output]
        except Exception as problem:  # whatever a part may need that is not in it
            lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
            self.tried.append(f"{words}: cannot be run alone: {lines[-1] if lines else type(problem).__name__}")
            return False
        error = part.error_of(got)
        if error <= part.budget:
            self.tried.append(f"{words}: off by {error:.1e} alone")
        return not error <= part.budget

    def _with_fewer_nodes(self, part: Part) -> Part:
        """Take away nodes from the far end, one at a time, as long as the rest is still wrong."""
        for node in part.nodes:
            rest = tuple(each for each in part.nodes if each.name != node.name)
            if part.output in node.outputs or not rest:
                continue
            smaller = self._of(part, tuple(nodes_behind(rest, part.output)))
            if all(name in self.values for name in node.outputs) and self._is_wrong(smaller, _names(smaller.nodes)):
                part = smaller if len(smaller.nodes) < len(part.nodes) else part
        return part

    def _with_fewer_rows(self, part: Part) -> Part:
        """Keep one row of the batch, where one is wrong by itself, and in the same way as in the batch."""
        if part.expected is None:
            return part
        whole = self.graph.run_alone(part.nodes, part.feed, [part.output])[part.output]
        rows = whole.shape[0] if whole.ndim and whole.size == part.expected.size else 0
        for row in range(rows if rows > 1 else 0):
            cut = {n: v[row : row + 1] if v.ndim > 1 and v.shape[0] == rows else v for n, v in part.feed.items()}
            expected = part.expected.reshape(whole.shape)[row : row + 1]
            smaller = replace(part, feed=cut, expected=expected)
            same = replace(smaller, expected=whole[row : row + 1])
            if self._is_wrong(smaller, f"row {row}") and not self._is_wrong(same, f"row {row}, as in the batch"):
                return smaller
        return part


def nodes_behind(nodes: Sequence[GraphNode], output: str) -> list[GraphNode]:
    """Return those that lead to a value."""
    wanted, found = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]


def taken_by(nodes: Sequence[GraphNode]) -> list[str]:
    """Return the names of what nodes take that none of them gives."""
    made = {name for each in nodes for name in each.outputs}
    return list(dict.fromkeys(name for each in nodes for name in each.inputs if name and name not in made))


def _names(nodes: Sequence[GraphNode]) -> str:
    shown = ", ".join(node.name for node in nodes[:4])
    return shown if len(nodes) <= 4 else f"{shown} and {len(nodes) - 4} more"
