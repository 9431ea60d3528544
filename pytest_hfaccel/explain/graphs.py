"""Where a converted graph leaves the model it was made of: the first node whose output nothing in torch agrees with.

A graph has no modules. All its values are therefore read (each made an output) and looked up, by size and numbers,
among the values that torch computes for the same inputs (`torch_values`). A value is right if torch has it, or if
something that is computed of it is right: torch need not have each step of a graph. The first node whose inputs are
right and whose output is not is the guilty one. Whether its runtime computes it wrongly, or whether the graph is
another than the model, tells the node run alone: against the same node in fp64, and against torch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.explain.modules import Side, error_between, tensor_error
from pytest_hfaccel.explain.parts import Part, PartSearch, nodes_behind, taken_by
from pytest_hfaccel.explain.torch_values import Array, TorchValue, ValueIndex, record_values, relative_error

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hfaccel.core.spec import Device

_TELLING_SIZE = 8
"""Elements that a value must have for being found among torch's to mean something."""

_STEPS = 4
_MANY_STEPS = 24
"""Operators of torch between the inputs and the output of one node, and of one that is a whole attention."""

_WHOLE = frozenset({"ScaledDotProductAttention", "Attention", "MultiHeadAttention", "GroupQueryAttention"})

_EPS_FACTOR = 64.0
_TWIN_FACTOR = 4.0
"""Two values are the same up to this many units in the last place, and up to this many times what the same model on
the CPU at the same dtype is off by. Chosen, not derived."""

_LARGEST_COST = 0.1
"""What a module of the twin is off by at most for being taken as the cost of the dtype; beyond it is broken itself."""

RUNTIME, GRAPH = "runtime", "graph"
_ORIGINS = {RUNTIME: "the same node in fp64 on the same inputs", GRAPH: "what torch computes in fp64"}

_JUDGED = 4
"""How many nodes that are wrong given right inputs are looked at."""


@dataclass(frozen=True)
class GraphNode:
    """A node of a graph.

    Attributes:
        name: Its name, unique in the graph.
        operator: E.g. `LayerNormalization`.
        inputs: Names of the values it takes, in order; those of the graphs inside it at the end. Empty for an absent.
        outputs: Names of the values it gives.
        attributes: As text: `epsilon=1e-12`.
        narrows: The floating-point type it casts to, if that is a narrower one; else empty.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: str = ""
    narrows: str = ""


class RuntimeGraph(Protocol):
    """A graph of a runtime, whose values can be read and whose nodes can be computed in fp64.

    Attributes:
        title: The runtime's name.
        nodes: In an order in which they can be run.
        inputs: Names of the graph's inputs; one that the graph also changes has the prefix `input.`.
        outputs: Names of the graph's outputs.
        constants: Its constants by name, in the dtype in which the graph has them.
    """

    title: str
    nodes: Sequence[GraphNode]
    inputs: Sequence[str]
    outputs: Sequence[str]

    @property
    def constants(self) -> Mapping[str, Array]:
        """Return the constants."""

    def run(self, feed: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Run the graph on its device; return values by name, those that the runtime cannot give left out."""

    def run_exactly(self, node: GraphNode, feed: Mapping[str, Array]) -> list[Array]:
        """Compute a node's outputs in fp64, or as exactly as there is a way to, without the runtime's kernels."""

    def run_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Run some nodes, and nothing else, on the device; what they take that is not fed is constant."""

    def write_alone(
        self, nodes: Sequence[GraphNode], feed: Mapping[str, Array], outputs: Sequence[str], path: Path
    ) -> tuple[str, list[Path]]:
        """Write what `run_alone` would run beside a script.

        Args:
            nodes: The nodes.
            feed: What they take that is not constant.
            outputs: What they should return.
            path: The script.

        Returns:
            Python code that sets `title` (runtime, version and device) and `got` (the first output), and may use
            `here` (the folder) and `data` (the feed by name); and the files that were written.
        """


@dataclass(frozen=True)
class NodeError:
    """The first node that is wrong. Errors are relative L2 norms; `inf` for NaN, another shape or another mask.

    Attributes:
        node: Its name in the graph.
        operator: Its operator.
        module: Dotted path of the module that it belongs to; empty where that is unknown.
        kind: The module's class.
        torch_operator: The operator of torch that should have given its output; empty where none was found.
        reason: What is wrong.
        place: `runtime` if the runtime computes it wrongly, `graph` if the graph is another than the model.
        input_error: Of its inputs, against the values of torch they were found to be.
        error: Of its output; `None` where there is nothing to compare it with.
        own_error: Of its output against the same node in fp64 with the same inputs; `None` where that cannot be had.
        added_error: Of its output where it is run alone with torch's values as inputs; `None` where that cannot be had.
        budget: What the errors may be.
        shapes: Of its inputs.
        dtype: Of its output.
        output: Name of the value that is wrong.
    """

    node: str
    operator: str
    module: str
    kind: str
    torch_operator: str
    reason: str
    place: str
    input_error: float
    error: float | None
    own_error: float | None
    added_error: float | None
    budget: float
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    output: str

    @property
    def adds_error(self) -> bool:
        """Whether it is not only that a small difference of its inputs grows."""
        return self.added_error is None or not self.added_error <= self.budget


@dataclass(frozen=True)
class GraphExplanation:
    """Where a graph's error comes from.

    Attributes:
        title: The runtime.
        error: The largest relative L2 error of the graph's outputs.
        budget: What it may be.
        guilty: The first wrong node; `None` where there is none.
        others: Names of other nodes whose inputs are right and whose outputs are not.
        values: How many values of the graph were compared.
        matched: How many of them torch has.
        note: What else there is to say; empty for nothing.
        part: What shows the error by itself, before it is made smaller.
        search: Makes it smaller.
    """

    title: str
    error: float
    budget: float
    guilty: NodeError | None
    others: tuple[str, ...] = ()
    values: int = 0
    matched: int = 0
    note: str = ""
    part: Part | None = None
    search: PartSearch | None = None

    def lines(self) -> Iterator[str]:
        """Yield the answer as lines of text."""
        found = self.guilty
        if found is None:
            yield f"No node of the graph is wrong. Outputs are off by {self.error:.1e}, allowed {self.budget:.1e}."
        else:
            module = f"{found.module} ({found.kind})" if found.module else found.kind or "an unknown module"
            off = "" if found.error is None else f" is off by {found.error:.1e}; {found.budget:.1e} are allowed"
            yield f"First divergence: {module}{off}. The inputs are off by {found.input_error:.1e}."
            shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in found.shapes)
            torch_operator = f", torch's {found.torch_operator}" if found.torch_operator else ""
            yield f"Operator: {found.operator} {found.node}{torch_operator} ({shapes}; {found.dtype}): {found.reason}."
            if found.own_error is not None:
                yield f"  off by {found.own_error:.1e} from the same node in fp64 on the same inputs"
            if found.added_error is not None:
                yield f"  off by {found.added_error:.1e} where it is run alone with the inputs that torch has"
            if self.others:
                yield f"Other nodes that are wrong given right inputs: {', '.join(self.others)}"
        yield f"{self.matched} of {self.values} values of the graph are values of torch."
        if self.note:
            yield self.note

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return {
            **{key: value for key, value in vars(self).items() if key not in ("guilty", "part", "search")},
            "operator": None if self.guilty is None else vars(self.guilty),
        }


def tolerance(eps: float, twin_error: float) -> float:
    """Return up to which relative L2 error two values are the same.

    Args:
        eps: The unit in the last place of the graph's dtype.
        twin_error: What the same model on the CPU at that dtype is off by.
    """
    return max(_EPS_FACTOR * eps, _TWIN_FACTOR * twin_error if np.isfinite(twin_error) else 0.0)


class GraphBesideTorch:
    """A graph, and what torch computes for the same inputs.

    Args:
        graph: The graph.
        feed: Its inputs.
        index: What torch computes.
        weights: The model's parameters and buffers by name.
    """

    def __init__(
        self, graph: RuntimeGraph, feed: Mapping[str, Array], index: ValueIndex, weights: Mapping[str, Array]
    ) -> None:
        self.graph, self.index, self.budget = graph, index, index.tolerance
        self._weights = {name: np.sort(value, axis=None) for name, value in weights.items()}
        names = [name for node in graph.nodes for name in node.outputs if name]
        self._dependent = self._depends_on(feed)
        self.values: dict[str, Array] = {**graph.run(feed, [n for n in names if n in self._dependent]), **feed}
        self.same = {name: index.same_as(value) for name, value in self.values.items() if self._is_telling(name)}
        self._found = {number for numbers in self.same.values() for number in numbers}
        self._right = self._right_values()
        self.search = PartSearch(graph, self.values)

    def explain(self, error: float) -> GraphExplanation:
        """Name the first wrong node.

        Args:
            error: The largest relative L2 error of the graph's outputs, run as it is.
        """
        counts: dict[str, Any] = {"values": len(self.same), "matched": sum(map(bool, self.same.values()))}
        nodes = self._nodes_behind_wrong_outputs()
        about: dict[str, Any] = {"title": self.graph.title, "error": error, "budget": self.budget, **counts}
        first = next((node for node in nodes if self._makes_first_nan(node)), None)
        if first is not None:
            guilty, part = self._judge(first, nan=True)
            return GraphExplanation(guilty=guilty, part=part, search=self.search, **about)
        if error <= self.budget:
            return GraphExplanation(guilty=None, **about)
        candidates = [node for node in nodes if self._is_wrong(node)]
        if not candidates:
            return self._explain_merged(about)
        judged = [self._judge(node) for node in candidates[:_JUDGED]]
        guilty, part = next((each for each in judged if each[0].adds_error), judged[0])
        others = tuple(node.name for node in candidates[:_JUDGED] if node.name != guilty.node)
        return GraphExplanation(guilty=guilty, others=others, part=part, search=self.search, **about)

    def _explain_merged(self, about: Mapping[str, Any]) -> GraphExplanation:
        """Find the nodes that are wrong together: with all values made outputs, none of them is."""
        note = (
            "With all its values made outputs the graph is right: the error is in what the runtime makes of several "
            "nodes at once."
        )
        output = next((name for name in self.graph.outputs if self._error_as_last(name) > self.budget), "")
        behind = nodes_behind(self.graph.nodes, output)
        names = [name for node in behind for name in node.outputs if self.same.get(name)]
        if not output or not names:
            return GraphExplanation(guilty=None, note=note, **about)
        # The first value that is wrong where the graph ends with it: those before it are right, those after it wrong.
        number = bisect_left(names, 1, key=lambda name: int(self._error_as_last(name) > self.budget))
        name = names[min(number, len(names) - 1)]
        node = next(node for node in behind if name in node.outputs)
        value = self.index.values[self.same[name][0]]
        part = Part((node,), {}, name, value.array, "what torch computes in fp64", self.budget)
        smallest = self.search.smallest(part)
        nodes = smallest.nodes if smallest else (node,)
        beside = ", ".join(each.name for each in nodes if each is not node)
        guilty = NodeError(
            node=node.name,
            operator=node.operator,
            module=value.module,
            kind=value.kind,
            torch_operator=value.operator,
            reason=f"the runtime computes it wrongly together with {beside or 'nodes before it'}; each alone is right",
            place=RUNTIME,
            input_error=0.0,
            error=self._error_as_last(name),
            own_error=None,
            added_error=None,
            budget=self.budget,
            shapes=tuple(self._value(each).shape for each in node.inputs if each),
            dtype=str(self.values[name].dtype),
            output=name,
        )
        return GraphExplanation(guilty=guilty, note=note, part=part, search=self.search, **about)

    def _error_as_last(self, name: str) -> float:
        """Return the error of a value where the graph ends with it, and no other value is read."""
        if not self.same.get(name):
            return 0.0
        feed = {each: self.values[each] for each in self.graph.inputs}
        try:
            got = self.graph.run_alone(nodes_behind(self.graph.nodes, name), feed, [name])[name]
        except Exception:  # a graph that cannot end here says nothing
            return 0.0
        return relative_error(got, self.index.values[self.same[name][0]].array)

    def _depends_on(self, feed: Mapping[str, Array]) -> set[str]:
        dependent = set(feed)
        for node in self.graph.nodes:
            if dependent.intersection(node.inputs):
                dependent.update(node.outputs)
        return dependent

    def _is_telling(self, name: str) -> bool:
        """Whether it would mean something that torch has a value: not for sizes, masks and the like."""
        value = self.values[name]
        if value.size < _TELLING_SIZE or not np.issubdtype(value.dtype, np.floating):
            return False
        flat = value.reshape(-1)
        return bool(np.unique(flat[:4096]).size > 2 or not np.isfinite(flat).all())

    def _right_values(self) -> set[str]:
        """Return what torch has, and what leads to it."""
        right = {name for name in self.values if name not in self.same or self.same[name]}
        consumers: dict[str, list[GraphNode]] = defaultdict(list)
        for node in self.graph.nodes:
            for name in node.inputs:
                consumers[name].append(node)
        leads = {name for name, numbers in self.same.items() if numbers}
        for node in reversed(self.graph.nodes):
            for name in node.outputs:
                # Sizes and masks are the same for right and wrong numbers.
                if name in self.same and any(out in leads for each in consumers[name] for out in each.outputs):
                    leads.add(name)
        return right | leads

    def _nodes_behind_wrong_outputs(self) -> list[GraphNode]:
        wanted = {name for name in self.graph.outputs if name in self.same and name not in self._right}
        wanted = wanted or set(self.graph.outputs)
        behind = []
        for node in reversed(self.graph.nodes):
            if wanted.intersection(node.outputs):
                behind.append(node)
                wanted.update(node.inputs)
        return behind[::-1]

    def _is_wrong(self, node: GraphNode) -> bool:
        return any(name in self.same and name not in self._right for name in node.outputs) and all(
            name in self._right or name not in self.same for name in node.inputs
        )

    def _makes_first_nan(self, node: GraphNode) -> bool:
        def is_finite(name: str) -> bool:
            value = self.values.get(name)
            if value is None or not np.issubdtype(value.dtype, np.floating) or self.same.get(name):
                return True
            return bool(np.isfinite(value[value != -np.inf]).all())

        return not all(map(is_finite, node.outputs)) and all(map(is_finite, node.inputs))

    def _judge(self, node: GraphNode, *, nan: bool = False) -> tuple[NodeError, Part | None]:
        """Tell what is wrong with a node, and what shows it: its numbers in fp64, or the operator of torch it is.

        Returns:
            The error; and the node, or the nodes, with what they should give. `None` where that is not known.
        """
        nodes, narrow = [node], ""
        if node.narrows and not nan:
            nodes, narrow = self._follow_casts(node), node.narrows
        last = nodes[-1]
        output = next((name for name in last.outputs if name in self.same), last.outputs[0])
        got = self.values[output]
        counterpart, alike = self._counterpart(last, nodes, output)
        own = self._own_error(last, got, output) if len(nodes) == 1 else None
        place = RUNTIME if own is not None and not own[0] <= self.budget else GRAPH
        expected = own[1] if place == RUNTIME and own else counterpart.array if counterpart and alike else None
        part = None
        if nan:
            part = Part((last,), {}, output, None, "", self.budget)
        elif expected is not None:
            part = Part(tuple(nodes), {}, output, expected, _ORIGINS[place], self.budget)
        else:
            part = self._part_with_following(nodes)
        names = taken_by(nodes)
        known = [name for name in names if self.same.get(name)]
        added = self._added_error(part, place) if part is not None and not nan else None
        reason = self._reason(last, counterpart, alike, place, narrow, nan)
        if added is not None and added <= self.budget:
            reason = f"a small difference of its inputs grows; {reason}"
        error = NodeError(
            node=last.name,
            operator=last.operator,
            module=counterpart.module if counterpart else self._module_of_constants(last),
            kind=counterpart.kind if counterpart else "",
            torch_operator=counterpart.operator if counterpart and alike else "",
            reason=reason,
            place=place,
            input_error=max((relative_error(self.values[each], self._of_torch(each)) for each in known), default=0.0),
            error=None if expected is None else relative_error(got, expected),
            own_error=own[0] if own else None,
            added_error=added,
            budget=self.budget,
            shapes=tuple(self._value(name).shape for name in last.inputs if name),
            dtype=narrow or str(got.dtype),
            output=output,
        )
        return error, part

    def _of_torch(self, name: str) -> Array:
        return self.index.values[self.same[name][0]].array

    def _part_with_following(self, nodes: Sequence[GraphNode]) -> Part | None:
        """Add the nodes that follow until torch has what they should give."""
        chosen = list(nodes)
        for _ in range(_STEPS):
            made = set(chosen[-1].outputs)
            following = next((node for node in self.graph.nodes if made.intersection(node.inputs)), None)
            if following is None:
                return None
            chosen.append(following)
            output = next((name for name in following.outputs if name in self.same), "")
            counterpart, alike = self._counterpart(following, chosen, output) if output else (None, False)
            if counterpart is not None and alike:
                return Part(tuple(chosen), {}, output, counterpart.array, _ORIGINS[GRAPH], self.budget)
        return None

    def _added_error(self, part: Part, place: str) -> float | None:
        """Run nodes alone with the inputs that torch has; return how far they are from what they should give then."""
        feed = {name: self.values[name] for name in taken_by(part.nodes) if name in self.values}
        for name, value in feed.items():
            if self.same.get(name):
                feed[name] = self._of_torch(name).reshape(value.shape).astype(value.dtype)
        try:
            got = self.graph.run_alone(part.nodes, feed, [part.output])[part.output]
            expected = part.expected
            if place == RUNTIME:
                (node,) = part.nodes
                taken = {name: feed.get(name, self._value(name)) for name in node.inputs if name}
                expected = self.graph.run_exactly(node, taken)[node.outputs.index(part.output)]
        except Exception:  # a node may not run alone
            return None
        return None if expected is None else relative_error(got, expected)

    def _value(self, name: str) -> Array:
        found = self.values.get(name)
        return self.graph.constants[name] if found is None else found

    def _follow_casts(self, cast: GraphNode) -> list[GraphNode]:
        """Return a cast to a narrower type, those beside it, and the first node that computes with them."""
        made = set(cast.outputs)
        for node in self.graph.nodes:
            if made.intersection(node.inputs):
                if node.narrows or node.operator in ("Cast", "Convert"):
                    made.update(node.outputs)
                    continue
                beside = [e for e in self.graph.nodes if e.narrows and set(e.outputs).intersection(node.inputs)]
                return [*dict.fromkeys((cast, *beside)), node]
        return [cast]

    def _own_error(self, node: GraphNode, got: Array, output: str) -> tuple[float, Array] | None:
        feed = {name: self._value(name) for name in node.inputs if name}
        try:
            exact = self.graph.run_exactly(node, feed)[node.outputs.index(output)]
        except Exception:  # whatever the reference implementation of a node may not know
            return None
        return relative_error(got, exact), exact

    def _counterpart(self, node: GraphNode, nodes: Sequence[GraphNode], output: str) -> tuple[TorchValue | None, bool]:
        """Return the value of torch that a node should have given, and whether its operator is the like of the node's.

        It follows from the values of torch that the node's inputs are, nobody in the graph gives it, and it is
        computed with the weights that the node has, if these are some parameter's.
        """
        inputs = taken_by(nodes)
        sources = [set(self.same[name]) for name in inputs if self.same.get(name)]
        if not sources:
            sources = [set(self.index.same_as(self.values[name])) for name in inputs if name in self.values]
        size = self.values[output].size
        constants = {each for name in inputs for each in self._names_of(name)}
        steps = _MANY_STEPS if node.operator in _WHOLE else _STEPS
        found: list[tuple[tuple[bool, bool, bool, int, int, int, int], TorchValue, bool]] = []
        for source in filter(None, sources):
            for value, distance in self.index.following(source, steps):
                alike = _alike(node.operator, value.name)
                common = sum(bool(each.intersection(value.inputs)) for each in sources)
                rank = (
                    value.array.size != size,
                    value.number in self._found,
                    not alike,
                    -len(constants.intersection(value.weights)),
                    _likeness(node.operator, value.name),
                    distance - common,
                    value.number,
                )
                found.append((rank, value, alike and value.array.size == size))
        if not found:
            return None, False
        _, value, alike = min(found, key=lambda each: each[0])
        return value, alike

    def _names_of(self, name: str) -> list[str]:
        """Return the parameters whose numbers a constant has, in any order; none for one with few different ones."""
        if name in self._weights:
            return [name]
        constant = self.graph.constants.get(name) if name not in self.values else None
        if constant is None or constant.size < _TELLING_SIZE:
            return []
        numbers = np.sort(constant.astype(np.float64), axis=None)
        if numbers[0] == numbers[-1]:
            return []
        return [
            each
            for each, weight in self._weights.items()
            if weight.size == numbers.size and relative_error(numbers, weight) <= self.budget
        ]

    def _module_of_constants(self, node: GraphNode) -> str:
        names = [each for name in node.inputs for each in self._names_of(name)]
        return names[0].rpartition(".")[0] if names else ""

    def _reason(
        self, node: GraphNode, counterpart: TorchValue | None, alike: bool, place: str, narrow: str, nan: bool
    ) -> str:
        if nan:
            return "it makes the first NaN or infinity; its inputs have none"
        if narrow:
            return f"it is computed in {narrow}"
        if place == RUNTIME:
            return "the runtime computes it wrongly: its output is wrong for its inputs"
        parts = ["the graph is another than the model"]
        if node.attributes:
            parts.append(f"the node has {node.attributes}")
        if counterpart is None:
            parts.append("nothing that torch computes of its inputs is like its output")
        elif alike:
            parts.append(f"torch runs {counterpart.operator}({counterpart.arguments})")
        else:
            parts.append(f"torch runs {counterpart.operator} on its inputs")
        if counterpart is not None and counterpart.weights:
            telling = [name for name in node.inputs if name in self.graph.constants and name not in self.values]
            large = [name for name in telling if self.graph.constants[name].size >= _TELLING_SIZE]
            if large:
                known = {each for name in large for each in self._names_of(name)}
                missing = [each for each in counterpart.weights if each not in known and self._weights[each].size > 1]
                if missing and not known.issuperset(counterpart.weights):
                    parts.append(f"with {', '.join(missing)}, which the node does not have")
                elif known:
                    parts.append(f"with {', '.join(sorted(known.intersection(counterpart.weights)))}")
        return "; ".join(parts)


_ALIKE = {
    "matmul": ("mm", "bmm", "matmul", "linear", "addmm", "baddbmm"),
    "gemm": ("addmm", "linear", "mm"),
    "gather": ("embedding", "index", "index_select", "gather"),
    "layernormalization": ("native_layer_norm",),
    "softmax": ("_softmax", "_safe_softmax", "softmax"),
    "where": ("where", "masked_fill"),
    "conv": ("convolution",),
    "reducemean": ("mean",),
    "reducesum": ("sum",),
    "transpose": ("permute", "transpose", "t"),
    "reshape": ("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze"),
    "swish": ("silu",),
    "mvn": ("native_layer_norm", "mul", "layer_norm"),
    "multiply": ("mul",),
    "subtract": ("sub", "rsub"),
    "divide": ("div",),
    "power": ("pow",),
    "select": ("where", "masked_fill"),
    "convert": ("_to_copy",),
    "scaleddotproductattention": ("bmm", "matmul"),
    "convolution": ("convolution",),
    "groupconvolution": ("convolution",),
}
"""What the nodes of graphs are called in torch, the closest first, where the names do not tell."""

_UNLIKE = 99


def _alike(operator: str, name: str) -> bool:
    """Whether a node's operator and one of torch's are the same thing."""
    return _likeness(operator, name) < _UNLIKE


def _likeness(operator: str, name: str) -> int:
    """Return 0 for the same operator, more for one that does more, such as a product with its bias."""
    names = _ALIKE.get(operator.lower(), (name,) if operator.lower() == name.strip("_").replace("_", "") else ())
    return names.index(name) if name in names else _UNLIKE


def explain_graph(
    graph: RuntimeGraph, feed: Mapping[str, Array], model: Any, twin: Any, inputs: Mapping[str, Any], error: float
) -> GraphExplanation:
    """Find where a graph leaves the model it was made of.

    Args:
        graph: The graph on its device.
        feed: Its inputs, by their names in the graph.
        model: The model in fp64 on the CPU.
        twin: The same at the graph's dtype; it says what the dtype costs.
        inputs: Arguments of `forward`: those that the graph got.
        error: The largest relative L2 error of the graph's outputs, run as it is.
    """
    recorded = (Side(model).record(inputs), Side(twin).record(inputs))
    costs = [error_between(recorded[1][name].output, call.output) for name, call in recorded[0].items()]
    dtype = Side(twin).dtype
    allowed = tolerance(torch.finfo(dtype).eps, max((each for each in costs if each < _LARGEST_COST), default=0.0))
    weights = dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers()))
    arrays = {name: each.detach().numpy() for name, each in weights.items() if not each.is_complex()}
    return GraphBesideTorch(graph, feed, ValueIndex(record_values(model, inputs), allowed), arrays).explain(error)


def explain_loaded(loaded: Any, source: Any, device: Device, dtype: str) -> tuple[GraphExplanation, RuntimeGraph]:
    """Find where a loaded model of an exported runtime leaves its checkpoint, for the sample inputs.

    Args:
        loaded: A `GraphModel`.
        source: Its `ModelSource`.
        device: Its device.
        dtype: Its dtype.

    Returns:
        What was found, and the graph.

    Raises:
        ConfigError: There is no way to read the values of that runtime's graphs.
    """
    inputs = source.sample().forward
    program, tensors = loaded.program_and_feed(inputs)
    graph = open_graph(program, device, dtype, source.spec.architecture, loaded.runtime)
    feed = {name: tensors[name.removeprefix("input.")].numpy() for name in graph.inputs}
    reference = source.torch_model("fp64")
    with torch.no_grad():
        expected = flatten_outputs(reference(**_like(reference, inputs)))
    got = loaded.forward(inputs)
    error = max((tensor_error(got[name], expected[name]) for name in got if name in expected), default=float("inf"))
    found = explain_graph(graph, feed, reference, source.torch_model(dtype), _like(reference, inputs), error)
    return found, graph


_IN_PAGES = ("wasm", "webgpu", "webnn")


def why_unreadable(device: Device) -> str:
    """Return why the values inside a device's graphs cannot be read; empty where they can."""
    if device.kind in ("onnxruntime", "openvino", *_IN_PAGES):
        return ""
    return f"explain cannot read the values inside the graphs of {device.kind}"


def require_readable(device: Device) -> None:
    """Make sure that the values inside a device's graphs can be read.

    Raises:
        ConfigError: They cannot.
    """
    if why := why_unreadable(device):
        raise ConfigError(
            f"{device}: {why}.",
            hint="Name one of torch, ONNX Runtime, OpenVINO or a browser: cuda:0, onnxruntime:CPU, openvino:CPU, wasm.",
        )


def open_graph(program: Any, device: Device, dtype: str, architecture: str, runtime: Any = None) -> RuntimeGraph:
    """Return a program of an exported runtime as a graph whose values can be read.

    Args:
        program: The program, before it is compiled.
        device: The device.
        dtype: The dtype to compute at.
        architecture: The model's class, for messages.
        runtime: The runtime that loaded it; needed for browsers.

    Raises:
        ConfigError: The runtime is none of those.
    """
    require_readable(device)
    if device.kind == "openvino":
        from pytest_hfaccel.explain.openvino_graphs import OpenVINOGraph

        return OpenVINOGraph(program, device, dtype)
    from pytest_hfaccel.explain.onnx_graphs import GraphInPage, OnnxGraph

    if device.kind in _IN_PAGES:
        return GraphInPage(program, runtime)
    from pytest_hfaccel.backends.onnxruntime.precision import in_half_precision

    return OnnxGraph(in_half_precision(program, architecture) if dtype == "fp16" else program, device)


def _like(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return dict(Side(model).moved(dict(inputs), ""))
