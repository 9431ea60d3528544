"""What a check is: a named function on a loaded cell that returns a verdict with its numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hfaccel.backends.base import LoadedModel, ModelSource, SampleInputs
from pytest_hfaccel.checks.claims import Claim
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Cell

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.benchmark.measuring import PerformanceRequest
    from pytest_hfaccel.checks.reference import Reference

CLASS, CELL = "class", "cell"
"""The two levels: once per model, or once per cell."""


class CheckContext(Protocol):
    """What a check may ask for. Everything is made on first use and kept for the cell's other checks."""

    cell: Cell

    @property
    def source(self) -> ModelSource:
        """The checkpoint."""

    @property
    def sample(self) -> SampleInputs:
        """The inputs."""

    @property
    def loaded(self) -> LoadedModel:
        """The model on the cell's device. Not there on class level."""

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """What the model gave for the sample on the cell's device, in one run for all checks; see `forward`."""

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
        """What the model class module says the model must make of its task; used by the check `task_sense`."""

    @property
    def performance_request(self) -> PerformanceRequest:
        """What the check `performance` is to do: points, budget and timer."""

    def outcome_of(self, name: str) -> CheckOutcome | None:
        """The outcome of a check that has already run on this cell; `None` if it has not run."""


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        name: Its name in reports, in `-k` and in a registry's `expect:`.
        function: Takes the context, returns the outcome. An exception becomes an outcome with the exception's status.
        stage: The stage a failure of it is booked under.
        level: `class` (once per model) or `cell`.
        applies: Whether a cell has this check at all; decided from plain data, before anything is loaded.
        option: The option that asks for an optional check, as its field in `RunConfig`; empty for the others.
    """

    name: str
    function: Callable[[CheckContext], CheckOutcome]
    stage: Stage
    level: str
    applies: Callable[[Cell], bool]
    option: str = ""

    def is_asked_for(self, options: object) -> bool:
        """Whether a run has this check: optional ones only where their option is set.

        Args:
            options: The run's `RunConfig`.
        """
        return not self.option or bool(getattr(options, self.option))

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


class CheckRegistry:
    """Checks by name; a second check of the same name is refused."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def check(
        self,
        name: str,
        *,
        stage: Stage = Stage.COMPARE,
        level: str = CELL,
        applies: Callable[[Cell], bool] = lambda _: True,
    ) -> Callable[[Callable[[CheckContext], CheckOutcome]], Callable[[CheckContext], CheckOutcome]]:
        """Decorate a function to register it under `name`."""

        def register(function: Callable[[CheckContext], CheckOutcome]) -> Callable[[CheckContext], CheckOutcome]:
            self.add(Check(name, function, stage, level, applies))
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

    def __len__(self) -> int:
        return len(self._checks)

    def copy(self) -> CheckRegistry:
        """Return a registry that can grow (by a user's checks) without changing this one."""
        other = CheckRegistry()
        other._checks = dict(self._checks)
        return other


def passed(name: str, **measures: Any) -> CheckOutcome:
    """Return a passed outcome with its numbers."""
    return CheckOutcome(name, Status.PASSED, measures=measures)


def failed(name: str, reason: str, *, stage: Stage = Stage.COMPARE, **measures: Any) -> CheckOutcome:
    """Return a failed outcome with its reason and numbers."""
    return CheckOutcome(name, Status.FAILED, stage=stage, reason=reason, measures=measures)


def skipped(name: str, reason: str, **measures: Any) -> CheckOutcome:
    """Return a skipped outcome; the reason says what would make it run."""
    return CheckOutcome(name, Status.SKIPPED, reason=reason, measures=measures)
