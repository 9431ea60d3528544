"""Runs a torch model beside its reference, module by module.

The error of a module's output has two parts: what its inputs brought, and what it added. To tell them apart, each
module is also run alone, with the inputs that the reference's module got. What it is off by then is its own: the module
is *guilty* where that is more than its dtype must cost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from pytest_hfaccel.core.errors import error_line

_TWIN_FACTOR = 4.0
_EPS_FACTOR = 32.0
"""A module may be off by this many times the error of the same module on the CPU at the same dtype, and in any case by
this many units in the last place of its dtype. Chosen, not derived: kernels sum in another order than the CPU."""


@dataclass(frozen=True)
class Call:
    """One call of a module: copies of what went in and came out.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        output: What it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


@dataclass(frozen=True)
class ModuleError:
    """How far one module is off. Errors are relative L2 norms of the differences; `inf` for NaN or another shape.

    Attributes:
        name: Dotted path in the model; empty for the model itself.
        kind: Its class.
        input_error: Of its inputs in the whole model.
        error: Of its output in the whole model.
        own_error: Of its output when it gets the reference's inputs; `None` where it cannot be run alone.
        budget: What `own_error` may be.
        problem: Why it cannot be run alone; empty if it can.
    """

    name: str
    kind: str
    input_error: float
    error: float
    own_error: float | None
    budget: float
    problem: str = ""

    @property
    def adds_error(self) -> bool:
        """Whether it is off by more than its budget, given right inputs."""
        return self.own_error is not None and not self.own_error <= self.budget


class Side:
    """A model that is compared.

    Args:
        model: A transformers model on any device, in any dtype.

    Attributes:
        dtype: The floating-point dtype of its first parameter.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modules: dict[str, Any] = dict(model.named_modules())
        first = next(each for each in model.parameters() if each.is_floating_point())
        self.dtype, self._device = first.dtype, first.device
        self._dtypes = {
            name: next((each.dtype for each in module.parameters() if each.is_floating_point()), first.dtype)
            for name, module in self.modules.items()
        }

    def record(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, Call]:
        """Run the model once; return the first call of each module, in the order in which they returned."""

        def run() -> None:
            with torch.inference_mode():
                self.model(**self.moved(dict(inputs), ""))

        return self.record_calls(run)

    def record_calls(self, run: Callable[[], None]) -> dict[str, Call]:
        """Do something with the model; return the first call of each module, in the order in which they returned."""
        calls: dict[str, Call] = {}
        entered: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        with ExitStack() as hooks:
            for name, module in self.modules.items():

                def before(_: Any, args: Any, kwargs: Any, *, name: str = name) -> None:
                    if name not in entered:
                        entered[name] = copied(args), copied(kwargs)

                def after(_: Any, args: Any, kwargs: Any, output: Any, *, name: str = name) -> None:  # noqa: ARG001
                    if name not in calls:
                        calls[name] = Call(*entered[name], copied(output))

                for handle in (
                    module.register_forward_pre_hook(before, with_kwargs=True),
                    module.register_forward_hook(after, with_kwargs=True),
                ):
                    hooks.callback(handle.remove)
            run()
        return calls

    def watch(self, inputs: Mapping[str, torch.Tensor], recorder: AbstractContextManager[Any], stack: list[str]) -> Any:
        """Run the model once under a recorder.

        Args:
            inputs: Arguments of `forward`.
            recorder: Sees each operator.
            stack: Gets the names of the modules that are running, the innermost last.
        """
        with ExitStack() as hooks:
            for name, module in self.modules.items():

                def enter(*_: Any, name: str = name) -> None:
                    stack.append(name)

                def leave(*_: Any) -> None:
                    stack.pop()

                hooks.callback(module.register_forward_pre_hook(enter).remove)
                hooks.callback(module.register_forward_hook(leave).remove)
            moved = self.moved(dict(inputs), "")
            with torch.inference_mode(), recorder:
                return self.model(**moved)

    def run_alone(self, name: str, call: Call, recorder: AbstractContextManager[Any] | None = None) -> Any:
        """Run a module with the inputs of a call, which stay as they are; the recorder sees the module only."""
        args, kwargs = self.moved(copied(call.args), name), self.moved(copied(call.kwargs), name)
        with torch.inference_mode(), recorder or nullcontext():
            return self.modules[name](*args, **kwargs)

    def moved(self, values: Any, name: str) -> Any:
        """Return a structure with its tensors on the device, the floating-point ones in the dtype of a module."""
        dtype = self._dtypes[name]
        limits = torch.finfo(dtype)

        def move(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if not value.is_floating_point():
                return value.to(self._device)
            if torch.finfo(value.dtype).max > limits.max:
                # What masks with the most negative number of fp64 must not become infinite.
                value = torch.where(value.isinf(), value, value.clamp(limits.min, limits.max))
            return value.to(self._device, dtype)

        return tree_map(move, values)


class SideBySide:
    """A model on a device, its reference, and the same model on the CPU at the device's dtype.

    Args:
        model: The model on its device.
        reference: The same in fp64 on the CPU.
        twin: The same on the CPU, at the model's dtype; it says what the dtype costs.
        inputs: Keyword arguments of `forward`, on the CPU.
    """

    def __init__(self, model: Any, reference: Any, twin: Any, inputs: Mapping[str, torch.Tensor]) -> None:
        self.device, self.reference, self.twin = Side(model), Side(reference), Side(twin)
        self.expected = self.reference.record(inputs)
        self._got = self.device.record(inputs)

    @property
    def has_new_nonfinite(self) -> bool:
        """Whether an output on the device has NaN or infinity, and none of the reference has."""
        return has_nonfinite(self._got[""].output) and not has_nonfinite(self.expected[""].output)

    @property
    def reference_is_nonfinite(self) -> bool:
        """Whether the reference itself has NaN or infinity where the device has numbers."""
        return has_nonfinite(self.expected[""].output) and not has_nonfinite(self._got[""].output)

    def compare(self) -> tuple[list[ModuleError], ModuleError | None]:
        """Return the errors of all modules, in the order in which they returned, and the guilty one if there is one."""
        errors = {name: self._error_of(name, call) for name, call in self.expected.items()}
        return list(errors.values()), _guilty(errors)

    def _error_of(self, name: str, expected: Call) -> ModuleError:
        kind = type(self.reference.modules[name]).__name__
        got = self._got.get(name)
        if got is None:
            return ModuleError(name, kind, 0.0, float("inf"), None, 0.0, "it did not run on the device")
        input_error = error_between((got.args, got.kwargs), (expected.args, expected.kwargs))
        error = error_between(got.output, expected.output)
        try:
            own = error_between(self.device.run_alone(name, expected), expected.output)
            budget = self.budget(name, expected)
        except Exception as problem:  # whatever a module may need that one call of it does not have
            return ModuleError(name, kind, input_error, error, None, 0.0, error_line(problem))
        return ModuleError(name, kind, input_error, error, own, budget)

    def budget(self, name: str, expected: Call) -> float:
        """Return what a module's own error may be."""
        least: float = _EPS_FACTOR * torch.finfo(self.device.dtype).eps
        cost = error_between(self.twin.run_alone(name, expected), expected.output)
        return max(least, _TWIN_FACTOR * cost) if cost < float("inf") else least


def _guilty(errors: Mapping[str, ModuleError]) -> ModuleError | None:
    """Return the first module that adds an error and has no part that does."""
    adding = [name for name, each in errors.items() if each.adds_error]
    for name in adding:
        prefix = f"{name}." if name else ""
        if not any(other != name and other.startswith(prefix) for other in adding):
            return errors[name]
    return None


def error_between(got: Any, expected: Any) -> float:
    """Return the largest relative L2 error among the tensors of two structures; `inf` where their numbers differ."""
    pairs = list(zip(tensors_in(got), tensors_in(expected), strict=False))
    if len(tensors_in(got)) != len(tensors_in(expected)):
        return float("inf")
    return max((tensor_error(*pair) for pair in pairs), default=0.0)


def tensor_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the relative L2 error of a tensor; for integers 0 or `inf`."""
    if got.shape != expected.shape:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(got.cpu(), expected.cpu()) else float("inf")
    right, left = expected.detach().double().cpu(), got.detach().double().cpu()
    same = (left == right) | (left.isnan() & right.isnan())  # also infinities, as masks have them
    # A mask's most negative number differs by dtype.
    same |= (left < -1e30) & (right < -1e30)
    off, norm = torch.where(same, 0.0, left - right), torch.where(right.isfinite() & (right.abs() < 1e30), right, 0.0)
    error = float(off.norm() / norm.norm().clamp_min(torch.finfo(torch.float64).tiny)) if off.any() else 0.0
    return float("inf") if error != error else error


def has_nonfinite(value: Any) -> bool:
    """Whether some floating-point tensor of a structure has NaN or infinity."""
    return any(not bool(each.isfinite().all()) for each in tensors_in(value) if each.is_floating_point())


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in a structure; caches and other objects are left out."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def copied(value: Any) -> Any:
    """Return a structure with copies of its tensors and of what a module may change."""

    def copy_of(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().clone()
        if isinstance(leaf, (int, float, str, bool, type(None), torch.dtype, torch.device, torch.nn.Module)):
            return leaf
        try:
            return copy.deepcopy(leaf)  # a cache, which the module changes
        except Exception:
            return leaf

    return tree_map(copy_of, value)
