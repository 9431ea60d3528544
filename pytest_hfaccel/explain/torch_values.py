"""Records what a torch model computes, value by value, so that a graph made of it can be compared without names.

A converted graph has no modules, and its operators are not torch's: one may stand for several of torch's, or several
for one. What both have in common is the values. They are found by size and numbers; to have something to find inside
torch's larger operators, these are also run in the smaller steps of torch's own decompositions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_hfaccel.explain.modules import tensors_in
from pytest_hfaccel.hardware.cpu import read_memory

Array = NDArray[Any]

_HUGE = 1e30
"""Numbers beyond it are masks: the most negative number of a dtype, or infinity."""

_COPIES = 4
"""How many times the recorded values there are in memory while a graph is compared with them: recorded, kept as
tensors, split into numbers and masks, and the graph's own."""

_DEEPEST = 4
"""Levels of decomposition: a decomposition's own operators are decomposed again."""


@dataclass(frozen=True)
class TorchValue:
    """A tensor that torch computed.

    Attributes:
        number: Its place in the order of computation.
        operator: E.g. `aten.addmm.default`.
        module: Dotted path of the module that computed it.
        kind: The module's class.
        inputs: Numbers of the values among the operator's inputs.
        weights: Parameters and buffers among them, by name.
        arguments: Other arguments, as text: `eps=1e-12`.
        array: The numbers, in fp64 where they are floating-point ones.
    """

    number: int
    operator: str
    module: str
    kind: str
    inputs: tuple[int, ...]
    weights: tuple[str, ...]
    arguments: str
    array: Array

    @property
    def name(self) -> str:
        """The operator's name without namespace and overload."""
        return self.operator.split(".")[1]


class _Recorder(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self, model: Any, largest_bytes: int) -> None:
        super().__init__()
        self._left = largest_bytes
        self.values: list[TorchValue] = []
        self.stack: list[str] = [""]
        self._kinds = {name: type(module).__name__ for name, module in model.named_modules()}
        self._weights: dict[int, frozenset[str]] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._weights[id(tensor)] = frozenset((name,))
        self._known: dict[int, tuple[int, ...]] = {}
        self._alive: list[Any] = []  # an id stays a tensor's own as long as the tensor lives
        self._depth = 0

    def note_inputs(self, inputs: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in inputs.items():
            self._append(f"input.{name}.", (), (), "", tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        inputs = tuple(dict.fromkeys(number for each in given for number in self._known.get(id(each), ())))
        weights = frozenset[str]().union(*(self._weights.get(id(each), frozenset()) for each in given))
        only_weights = bool(given) and all(id(each) in self._weights for each in given)
        output = func(*args, **kwargs)
        self._alive.append((given, output))
        for each in tensors_in(output):
            if only_weights:
                self._weights[id(each)] = weights
            elif func.namespace == "prims":  # the same once more, as the last step of a decomposition
                self._known[id(each)] = inputs
            else:
                self._append(str(func), inputs, tuple(sorted(weights)), _plain_arguments(func, args, kwargs), each)
        if not only_weights and self._depth < _DEEPEST and not func._schema.is_mutable:
            self._record_steps(func, args, kwargs)
        return output

    def _record_steps(self, func: Any, args: Any, kwargs: Any) -> None:
        from torch._decomp import decomposition_table

        steps = decomposition_table.get(func)
        if func is torch.ops.aten.convolution.default and args[2] is not None:
            steps, args = func, (*args[:2], None, *args[3:])  # the product without its bias
        if steps is None:
            return
        self._depth += 1
        # What cannot be decomposed with these arguments is not.
        with suppress(Exception), self:
            steps(*args, **kwargs)
        self._depth -= 1

    def _append(
        self, operator: str, inputs: tuple[int, ...], weights: tuple[str, ...], arguments: str, tensor: torch.Tensor
    ) -> None:
        if tensor.is_complex() or tensor.layout != torch.strided:
            return
        plain = tensor.detach().double() if tensor.is_floating_point() else tensor.detach()
        self._left -= plain.nbytes
        if self._left < 0:
            raise MemoryError("what the model computes inside takes more memory than is free")
        module = self.stack[-1]
        number = len(self.values)
        array = plain.cpu().numpy().copy()
        kind = self._kinds.get(module, "")
        self.values.append(TorchValue(number, operator, module, kind, inputs, weights, arguments, array))
        self._known[id(tensor)] = (number,)


def record_values(model: Any, inputs: Mapping[str, torch.Tensor]) -> list[TorchValue]:
    """Run a model on the CPU once; return the values that depend on its inputs, in the order of computation.

    Raises:
        MemoryError: There is not enough free memory to keep them and to compare a graph with them.
    """
    recorder = _Recorder(model, read_memory().available_bytes // _COPIES)
    recorder.note_inputs(inputs)
    with ExitStack() as hooks:
        for name, module in model.named_modules():

            def enter(*_: Any, name: str = name) -> None:
                recorder.stack.append(name)

            def leave(*_: Any) -> None:
                recorder.stack.pop()

            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        # Without gradients, but not in inference mode: there torch does not take `linear` and others apart.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), recorder:
            model(**inputs)
    return recorder.values


def _plain_arguments(func: Any, args: Any, kwargs: Any) -> str:
    named = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | dict(kwargs)
    shown = {
        name: value
        for name, value in named.items()
        if isinstance(value, (bool, int, float)) or (isinstance(value, (list, tuple)) and not tensors_in(value))
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def relative_error(got: Array, expected: Array) -> float:
    """Return the relative L2 error of an array; `inf` for another number of elements, NaN, or another mask."""
    if got.size != expected.size:
        return float("inf")
    (left, mine), (right, theirs) = _split(got), _split(expected)
    if not np.array_equal(mine, theirs):
        return float("inf")
    off = float(np.linalg.norm(left - right))
    return off / max(float(np.linalg.norm(right)), np.finfo(np.float64).tiny) if off else 0.0


def _split(array: Array) -> tuple[Array, Array]:
    """Return the numbers of an array, and for each whether it is 0 ordinary, 1 minus huge, 2 plus huge, 3 NaN."""
    flat = array.reshape(-1).astype(np.float64)
    codes = np.zeros(flat.shape, np.int8)
    if np.issubdtype(array.dtype, np.floating):
        codes[flat < -_HUGE], codes[flat > _HUGE], codes[np.isnan(flat)] = 1, 2, 3
        # fp16 has no huger numbers than these; a mask of it is that, or infinite.
        if array.dtype == np.float16:
            codes[flat <= -65504.0] = 1
    flat[codes != 0] = 0.0
    return flat, codes


@dataclass
class ValueIndex:
    """Finds torch's values by size and numbers.

    Args:
        values: What torch computed.
        tolerance: Relative L2 error up to which two values are the same.
    """

    values: list[TorchValue]
    tolerance: float
    _groups: dict[int, tuple[Array, Array, Array, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_size: dict[int, list[int]] = defaultdict(list)
        for value in self.values:
            by_size[value.array.size].append(value.number)
        self._by_size = by_size
        self._consumers: dict[int, list[int]] = defaultdict(list)
        for value in self.values:
            for number in value.inputs:
                self._consumers[number].append(value.number)

    def same_as(self, array: Array) -> list[int]:
        """Return the numbers of the values that are the same, those of the same shape first, then the closest."""
        numbers = self._by_size.get(array.size)
        if not numbers:
            return []
        if array.size not in self._groups:
            parts = [_split(self.values[number].array) for number in numbers]
            plain = np.stack([each for each, _ in parts])
            norms = np.maximum(np.linalg.norm(plain, axis=1), np.finfo(np.float64).tiny)
            self._groups[array.size] = plain, np.stack([codes for _, codes in parts]), norms, numbers
        plain, codes, norms, numbers = self._groups[array.size]
        mine, my_codes = _split(array)
        # The norms tell most apart without looking at the numbers.
        near = np.abs(norms - np.linalg.norm(mine)) <= self.tolerance * norms
        near &= (codes == my_codes).all(axis=1)
        rows = np.flatnonzero(near)
        errors = np.linalg.norm(plain[rows] - mine, axis=1) / norms[rows]
        found = [(numbers[row], float(error)) for row, error in zip(rows, errors, strict=True)]
        same = [(number, error) for number, error in found if error <= self.tolerance]
        same.sort(key=lambda each: (self.values[each[0]].array.shape != array.shape, each[1], each[0]))
        return [number for number, _ in same]

    def following(self, numbers: set[int], steps: int) -> Iterator[tuple[TorchValue, int]]:
        """Yield what torch computes from some values, and in how many steps, the nearest first."""
        seen, front = set(numbers), sorted(numbers)
        for distance in range(1, steps + 1):
            following = dict.fromkeys(each for number in front for each in self._consumers[number] if each not in seen)
            seen |= following.keys()
            front = sorted(following)
            for number in front:
                yield self.values[number], distance
