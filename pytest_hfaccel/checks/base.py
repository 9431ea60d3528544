"""What a check is: a function on a loaded cell, registered under a name, that returns a verdict with its numbers.

A built-in check is registered where it is written, with `built_in`; those of plugins with `CheckRegistry.check`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hfaccel.backends.base import LoadedModel, ModelSource, SampleInputs
from pytest_hfaccel.core.errors import LoadError, first_line
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Cell

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.benchmark.measuring import PerformanceRequest
    from pytest_hfaccel.numerics.budgets import BudgetRequest
    from pytest_hfaccel.numerics.reference import Reference

    Function = Callable[["CheckContext"], CheckOutcome]

CLASS, CELL = "class", "cell"
"""The two levels: once per model, or once per cell."""


@dataclass(frozen=True)
class Claim:
    """A statement about what a pretrained model does at its task (`fills '[MASK] is ...' with ...`), and its truth.

    Attributes:
        measures: JSON values it rests on.
    """

    text: str
    holds: bool
    measures: Mapping[str, Any] = field(default_factory=dict)


class CheckContext(Protocol):
    """What a check may ask for. Everything is made on first use and shared with the cell's other checks."""

    cell: Cell

    @property
    def source(self) -> ModelSource:
        """The checkpoint."""

    @property
    def sample(self) -> SampleInputs:
        """The inputs."""

    @property
    def loaded(self) -> LoadedModel:
        """The model on the cell's device; not available at class level."""

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """The outputs for the sample on the cell's device, from one run for all checks; see `LoadedModel.forward`."""

    def on_cpu(self, dtype: str) -> AbstractContextManager[LoadedModel]:
        """Give the model on the CPU with torch for a `with` block: the one a cell there has, unless it is a large one.

        Raises:
            HfAccelError: It cannot be loaded.
        """

    @property
    def reference(self) -> Reference:
        """The same weights on the CPU in fp64 (fp32 else), computed once per model."""

    @property
    def pipe(self) -> Any:
        """The `transformers.pipeline` of the model's task on this device."""

    @property
    def claims(self) -> Sequence[Claim]:
        """The claims of the model class module about the model; used by the check `task_sense`."""

    @property
    def performance_request(self) -> PerformanceRequest:
        """What the check `performance` is to do: points, budget and timer."""

    @property
    def budget_request(self) -> BudgetRequest:
        """What `parity` and `canary` are to do beyond one comparison: error budgets, more inputs, smallest faults."""

    def outcome_of(self, name: str) -> CheckOutcome | None:
        """The outcome of a check that has already run on this cell; `None` if it has not run."""


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        name: Its name in reports, in `-k` and in a registry's `expect:`.
        function: Takes the context, returns the outcome, which gets the check's name unless it has one. An exception
            becomes an outcome with the exception's status.
        stage: The stage a failure of it is booked under.
        level: `class` (once per model) or `cell`.
        applies: Whether a cell has this check at all; decided from plain data, before anything is loaded.
        option: The option that asks for an optional check, as its field in `RunConfig`; empty for the others.
    """

    name: str
    function: Function
    stage: Stage
    level: str
    applies: Callable[[Cell], bool]
    option: str = ""

    def is_asked_for(self, options: object) -> bool:
        """Whether a run with these options (a `RunConfig`) has this check: optional ones only with their option."""
        return not self.option or bool(getattr(options, self.option))

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return first_line(self.function.__doc__)


class CheckRegistry:
    """Checks by name; a second check of the same name is refused."""

    def __init__(self, checks: Iterable[Check] = ()) -> None:
        self._checks = {check.name: check for check in checks}

    def check(
        self,
        name: str,
        *,
        stage: Stage = Stage.COMPARE,
        level: str = CELL,
        applies: Callable[[Cell], bool] = lambda _: True,
        option: str = "",
    ) -> Callable[[Function], Function]:
        """Decorate a function to register it under `name`; the other arguments are the attributes of `Check`."""

        def register(function: Function) -> Function:
            self.add(Check(name, function, stage, level, applies, option))
            return function

        return register

    def add(self, check: Check) -> None:
        """Register a check.

        Raises:
            ValueError: The name is taken or cannot stand in a test's id, or the level is unknown.
        """
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", check.name):
            raise ValueError(f"{check.name!r} cannot name a check. Allowed: letters, digits, '_', '-' and '.'.")
        if check.name in self._checks:
            raise ValueError(f"a check named {check.name!r} is registered already: {self._checks[check.name].function}")
        if check.level not in (CLASS, CELL):
            raise ValueError(f"check {check.name!r}: level {check.level!r} is unknown. Allowed: {CLASS}, {CELL}.")
        self._checks[check.name] = check

    def __getitem__(self, name: str) -> Check:
        if name not in self._checks:
            raise KeyError(f"{name!r} is not a check. Known: {', '.join(self._checks)}")
        return self._checks[name]

    def __contains__(self, name: object) -> bool:
        return name in self._checks

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks.values())


BUILT_IN = CheckRegistry()
"""The built-in checks of the modules imported so far: use `built_in_checks`, which imports them all."""
built_in = BUILT_IN.check


def passed(*name: str, **measures: Any) -> CheckOutcome:
    """Return a passed outcome with its numbers."""
    return CheckOutcome(_old_name(name), Status.PASSED, measures=measures)


def failed(*reason: str, stage: Stage = Stage.COMPARE, **measures: Any) -> CheckOutcome:
    """Return a failed outcome with its reason and numbers."""
    *name, text = reason
    return CheckOutcome(_old_name(name), Status.FAILED, stage=stage, reason=text, measures=measures)


def passed_unless(problem: str, *, stage: Stage = Stage.COMPARE, **measures: Any) -> CheckOutcome:
    """Return a passed outcome where `problem` is empty, else a failed one with it as the reason."""
    return failed(problem, stage=stage, **measures) if problem else passed(**measures)


def skipped(*reason: str, **measures: Any) -> CheckOutcome:
    """Return a skipped outcome; the reason says what would make it run."""
    *name, text = reason
    return CheckOutcome(_old_name(name), Status.SKIPPED, reason=text, measures=measures)


def _old_name(names: Sequence[str]) -> str:
    if not names:
        return ""
    text = "the check's name is no longer an argument of passed(), failed() and skipped(): leave it out."
    warnings.warn(text, DeprecationWarning, stacklevel=3)
    return names[0]


def is_torch_cell(cell: Cell) -> bool:
    """Whether a cell runs transformers' own code with weights of one precision, which can be trained and compiled."""
    return cell.device.traits.torch_module and cell.dtype != "int8"


def is_eager_cell(cell: Cell) -> bool:
    """Whether a cell runs transformers' own code as it is written, not compiled."""
    return is_torch_cell(cell) and not cell.device.compiler


def private_copy(context: CheckContext, dtype: str = "") -> Any:
    """Load the cell's checkpoint once more, on the leased model's device, for a check that modifies its model.

    The leased model belongs to the pool and to the cell's other checks. `dtype` is that of the cell when not given.

    Raises:
        LoadError: The copy shares memory with the leased model, so that what is done to it would be done to both.
    """
    leased = context.loaded.pipeline_model()
    copy = context.source.torch_model(dtype or context.cell.dtype, str(next(leased.parameters()).device))
    theirs, ours = (
        {tensor.untyped_storage().data_ptr() for tensor in (*one.parameters(), *one.buffers()) if tensor.numel()}
        for one in (leased, copy)
    )
    if theirs & ours:
        raise LoadError(f"{len(theirs & ours)} tensors of the copy share memory with the leased model", stage="load")
    return copy


def move_to(model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return inputs on a torch model's device, floating-point ones in its dtype."""
    parameter = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    device, dtype = parameter.device, getattr(model, "dtype", parameter.dtype)
    return {
        name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
        for name, tensor in inputs.items()
    }
