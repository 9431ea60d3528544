"""Records the operators of one module on the device and in the reference, and finds the first that differs.

Both get the reference's inputs. The recordings are aligned by the operators' names; casts and views are passed over,
as another dtype has others of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from pytest_hfaccel.explain.modules import (
    Call,
    Side,
    copied,
    error_between,
    has_nonfinite,
    tensor_error,
    tensors_in,
)

_PASSED_OVER = frozenset(
    {
        *("_to_copy", "to", "detach", "clone", "alias", "contiguous", "lift_fresh"),
        *("view", "_unsafe_view", "reshape", "expand", "empty", "empty_like", "new_empty", "empty_strided"),
    }
)
"""Other dtypes have others of them, and what is not yet written has no right value."""

_NUMBERS_DIFFER = 1e-12
"""Relative difference from which two numbers among the arguments are different ones; both are Python's."""


@dataclass(frozen=True)
class Operation:
    """One operator as it was run.

    Attributes:
        operator: The operator (`torch._ops.OpOverload`).
        args: Copies of its positional arguments.
        kwargs: Copies of its keyword arguments.
        output: A copy of what it returned.
        weights: Names of the module's parameters and buffers among its tensors, by their position.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    weights: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name without namespace and overload: `native_layer_norm`."""
        return str(self.operator).split(".")[1]


@dataclass(frozen=True)
class OperatorError:
    """The first operator that differs.

    Attributes:
        operator: Its name, such as `aten.native_layer_norm.default`.
        reason: What is different.
        input_error: Relative L2 error of its inputs.
        error: Of its output.
        own_error: Of its output against the same operator in fp64 on the same inputs; `None` where it did not run.
        shapes: Of its tensors.
        dtype: Of its output.
        operation: What was run; `None` where it did not run on the device.
        expected: What the reference ran; `None` where it ran nothing.
        finite_before: Whether its inputs had no NaN and no infinity.
    """

    operator: str
    reason: str
    input_error: float
    error: float
    own_error: float | None
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    operation: Operation | None = None
    expected: Operation | None = None
    finite_before: bool = True


class _Recorder(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        named = [*module.named_parameters(), *module.named_buffers()]
        self._weights = {tensor.data_ptr(): name for name, tensor in named if tensor.numel()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = copied(args), copied(kwargs)
        weights = {
            number: self._weights[tensor.data_ptr()]
            for number, tensor in enumerate(tensors_in((args, kwargs)))
            if tensor.data_ptr() in self._weights
        }
        output = func(*args, **kwargs)
        self.operations.append(Operation(func, *before, copied(output), weights))
        return output


def record_operators(side: Side, name: str, call: Call) -> list[Operation]:
    """Run a module alone; return its operators in order."""
    recorder = _Recorder(side.modules[name])
    side.run_alone(name, call, recorder)
    return [each for each in recorder.operations if each.name not in _PASSED_OVER]


def first_difference(device: Side, reference: Side, name: str, call: Call, budget: float) -> OperatorError | None:
    """Return the first operator of a module that differs from the reference's; `None` where none does.

    Args:
        device: The model on its device.
        reference: The reference.
        name: Dotted path of the module.
        call: The reference's call of it.
        budget: Relative L2 error that an operator may add.
    """
    got, expected = record_operators(device, name, call), record_operators(reference, name, call)
    names = [each.name for each in got], [each.name for each in expected]
    for tag, i, i_end, j, j_end in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if tag == "equal":
            for left, right in zip(got[i:i_end], expected[j:j_end], strict=True):
                found = _compared(left, right, budget)
                if found is not None:
                    return found
        elif (found := _unmatched(got[i:i_end], expected[j:j_end])) is not None:
            return found
    return None


_MASKS = frozenset(
    {
        *("full", "full_like", "fill", "fill_", "masked_fill", "masked_fill_", "where", "scalar_tensor", "log"),
        *("new_full", "tril", "triu", "lift_fresh", "_to_copy", "clone", "empty", "empty_like", "empty_strided"),
    }
)
"""Operators that put infinities in on purpose, or give what nobody has written yet."""


class _NonFiniteRecorder(TorchDispatchMode):  # type: ignore[misc]
    """Notes the operators that make NaN of numbers, and infinity of finite numbers."""

    def __init__(self, model: Any, passed_over: frozenset[tuple[str, str]] = frozenset()) -> None:
        super().__init__()
        self.stack = [""]
        self.found: list[tuple[str, Operation]] = []
        self._passed_over = passed_over
        weights = [(name, each) for name, each in model.named_parameters() if each.is_floating_point()]
        self._bad = {each.data_ptr(): name for name, each in weights if has_nonfinite(each)}

    def bad_weight(self, operation: Operation) -> str:
        """Return the name of a parameter among an operator's inputs that has NaN or infinity itself; else empty."""
        return next(filter(None, operation.weights.values()), "")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        mutates = func._schema.is_mutable
        before = (copied(args), copied(kwargs)) if mutates else (args, kwargs)
        output = func(*args, **kwargs)
        name = str(func).split(".")[1]
        if name not in _MASKS and (self.stack[-1], name) not in self._passed_over:
            tensors = tensors_in(before)
            bad = {number: self._bad.get(each.data_ptr(), "") for number, each in enumerate(tensors)}
            after, inputs = _kinds_of(output), _kinds_of([each for n, each in enumerate(tensors) if not bad[n]])
            if after - inputs and not (after == {"infinity"} and "nan" in inputs):
                operation = Operation(func, copied(before[0]), copied(before[1]), copied(output), bad)
                self.found.append((self.stack[-1], operation))
        return output


def _kinds_of(value: Any) -> set[str]:
    floats = [each for each in tensors_in(value) if each.is_floating_point()]
    kinds = {"nan"} if any(bool(each.isnan().any()) for each in floats) else set()
    return kinds | ({"infinity"} if any(bool(each.isinf().any()) for each in floats) else set())


def first_nonfinite(
    device: Side, reference: Side, inputs: Mapping[str, torch.Tensor]
) -> tuple[str, OperatorError] | None:
    """Return the operator that makes the first NaN or infinity, and the module that runs it; `None` for no such.

    Where the reference's operator of that name makes them in the same module, too, they are meant.

    Args:
        device: The model on its device.
        reference: The reference.
        inputs: Arguments of `forward`, on the CPU.
    """
    meant = _NonFiniteRecorder(reference.model)
    reference.watch(inputs, meant, meant.stack)
    recorder = _NonFiniteRecorder(device.model, frozenset((module, each.name) for module, each in meant.found))
    device.watch(inputs, recorder, recorder.stack)
    if not recorder.found:
        return None
    module, operation = recorder.found[0]
    exact = _in_fp64(operation)
    expected = None if exact is None else Operation(operation.operator, operation.args, operation.kwargs, exact)
    weight = recorder.bad_weight(operation)
    reason = "it makes the first NaN or infinity; its inputs have none"
    if weight:
        reason = f"its weight {weight} has NaN or infinity on the device"
    return module, _error(operation, expected, reason)


def _unmatched(got: Sequence[Operation], expected: Sequence[Operation]) -> OperatorError | None:
    """Judge operators of one side only: some are the same thing by another name (a fused kernel of another dtype)."""
    if got and expected and error_between(got[-1].output, expected[-1].output) < 1e-3:
        return None
    if got:
        reason = f"the reference does not run it here; it runs {_names(expected) or 'nothing'}"
        return _error(got[0], None, reason)
    missing = expected[0]
    shapes = tuple(tuple(each.shape) for each in tensors_in((missing.args, missing.kwargs)))
    reason = f"the device does not run it; the reference runs {_names(expected)} here"
    return OperatorError(str(missing.operator), reason, 0.0, float("inf"), None, shapes, "")


def _compared(left: Operation, right: Operation, budget: float) -> OperatorError | None:
    arguments = list(_different_arguments(left, right))
    if arguments:
        return _error(left, right, "; ".join(arguments))
    if error_between(left.output, right.output) <= budget:
        return None
    weights = list(_different_weights(left, right, budget))
    if weights:
        return _error(left, right, f"its weight {', '.join(weights)} is another than the reference's")
    own = _own_error(left)
    if own is None or not own <= budget:
        return _error(left, right, "its output is wrong for its inputs")
    if _input_error(left, right) <= budget:
        return _error(left, right, "a small difference of its inputs grows")
    return None  # inherited: what brought it has been passed over, or comes later


def _different_arguments(left: Operation, right: Operation) -> Iterator[str]:
    """Yield the arguments other than tensors that differ."""
    schema = left.operator._schema.arguments
    mine, theirs = _by_name(left, schema), _by_name(right, schema)
    for name in dict.fromkeys((*mine, *theirs)):
        one, other = mine.get(name), theirs.get(name)
        if isinstance(one, torch.Tensor) != isinstance(other, torch.Tensor) and (one is None or other is None):
            yield f"{name} is absent" if one is None else f"{name} is there, which the reference does not have"
        elif _plain(one) and _plain(other) and not _same(one, other):
            yield f"{name} = {one!r}, in the reference {other!r}"


def _by_name(operation: Operation, schema: Any) -> dict[str, Any]:
    defaults = {each.name: each.default_value for each in schema if each.has_default_value()}
    positional = dict(zip((each.name for each in schema), operation.args, strict=False))
    return {**defaults, **positional, **operation.kwargs}


def _plain(value: Any) -> bool:
    return all(isinstance(leaf, (bool, int, float, str, type(None))) for leaf in tree_leaves(value))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        if one is None or other is None:
            return one is other
        huge = abs(one) > 1e4 and abs(other) > 1e4  # the most negative number of a dtype, for masks
        return bool(one == other) or huge or abs(one - other) <= _NUMBERS_DIFFER * max(abs(one), abs(other))
    return bool(one == other)


def _different_weights(left: Operation, right: Operation, budget: float) -> Iterator[str]:
    pairs = zip(tensors_in((left.args, left.kwargs)), tensors_in((right.args, right.kwargs)), strict=False)
    for number, (one, other) in enumerate(pairs):
        if (number in left.weights or number in right.weights) and tensor_error(one, other) > budget:
            yield left.weights.get(number) or right.weights[number]


def _own_error(operation: Operation) -> float | None:
    """Return how far an operator's output is from its output in fp64 with the same inputs."""
    right = _in_fp64(operation)
    return None if right is None else error_between(operation.output, right)


def _in_fp64(operation: Operation) -> Any:
    """Run the operator in fp64 on the CPU with its own inputs; `None` where that cannot be done."""

    def exact(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return torch.float64 if value in (torch.float32, torch.float16, torch.bfloat16) else value
        return value.double().cpu() if value.is_floating_point() else value.cpu()

    try:
        with torch.inference_mode():
            return operation.operator(*tree_map(exact, operation.args), **tree_map(exact, operation.kwargs))
    except (RuntimeError, NotImplementedError):
        return None  # there is no such kernel in fp64 on the CPU


def _input_error(left: Operation, right: Operation) -> float:
    return error_between((left.args, left.kwargs), (right.args, right.kwargs))


def _error(left: Operation, right: Operation | None, reason: str) -> OperatorError:
    inputs = tensors_in((left.args, left.kwargs))
    outputs = tensors_in(left.output)
    return OperatorError(
        operator=str(left.operator),
        reason=reason,
        input_error=_input_error(left, right) if right is not None else float("nan"),
        error=error_between(left.output, right.output) if right is not None else float("inf"),
        own_error=_own_error(left),
        shapes=tuple(tuple(each.shape) for each in inputs),
        dtype=str(outputs[0].dtype).removeprefix("torch.") if outputs else "",
        operation=left,
        expected=right,
        finite_before=all(bool(each.isfinite().all()) for each in inputs if each.is_floating_point()),
    )


def _names(operations: Sequence[Operation]) -> str:
    return ", ".join(each.name for each in operations[:4])
