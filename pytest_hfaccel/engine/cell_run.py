"""Run the checks of one cell: their context, and how errors and expected failures become outcomes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.measurement import Point, points_of, varies_in_length
from pytest_hfaccel.benchmark.measuring import PerformanceRequest
from pytest_hfaccel.core.errors import (
    HfAccelError,
    cause_of_error,
    is_device_lost,
    is_fault_of_machine,
    is_out_of_memory,
)
from pytest_hfaccel.core.events import CheckFinished, RecordBuilder
from pytest_hfaccel.core.results import NOT_REACHED, CellKey, CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import CLASS_LEVEL, Cell, Expectation, ModelSpec
from pytest_hfaccel.core.stages import at_stage
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.engine.memory import CellMemory
from pytest_hfaccel.hardware.visibility import physical_device
from pytest_hfaccel.numerics.budgets import BudgetRequest
from pytest_hfaccel.registry.requirements import require_installed

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, SampleInputs
    from pytest_hfaccel.checkpoints import Checkpoint
    from pytest_hfaccel.checks.base import Check
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.numerics.reference import Reference
    from pytest_hfaccel.pool import Lease

PERFORMANCE = "performance"
"""The check that runs once per point, and only when asked for."""

_DEVICE = "device"
"""Among the failures of a cell: the error after which its device cannot be used."""

_BEFORE_RUN = frozenset({Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE})


class CellRun:
    """One cell of a run: the context of its checks, and the outcomes so far.

    What a check asks for (`loaded`, `reference`, ...) is made on first use and lives until `close`. So does an error
    in making it: the first check that meets it reports it, the others refer to that report.
    """

    def __init__(
        self, runner: Runner, cell: Cell, module: str = "", claims: Callable[[Any], Any] | None = None
    ) -> None:
        self.runner = runner
        self.cell = cell
        self.module = module
        self.outcomes: dict[str, CheckOutcome] = {}
        self._claims = claims
        self.performance_request = self.default_performance = PerformanceRequest(
            tuple(points_of_run([cell.model], runner.config))
        )
        self.budget_request = BudgetRequest(runner.config.budget, runner.config.samples, runner.config.power)
        self._record = RecordBuilder()
        self._lease: Lease | None = None
        self._memory = CellMemory(runner, cell)
        self._pipe: Any = None
        self._outputs: Mapping[str, torch.Tensor] | None = None
        self._failures: dict[str, tuple[BaseException, str]] = {}
        self._is_installed = False
        self._running = ""
        self._making = 0.0
        self._facts: dict[str, Any] = {}

    @property
    def key(self) -> CellKey:
        """What its record is found by."""
        return (self.module, self.cell.id)

    @property
    def source(self) -> Checkpoint:
        """The checkpoint."""
        return self._once("source", lambda: self.runner.checkpoint(self.cell))  # type: ignore[no-any-return]

    @property
    def sample(self) -> SampleInputs:
        """The inputs."""
        return self.source.sample()

    @property
    def loaded(self) -> LoadedModel:
        """The model on the cell's device, leased from the pool until `close`."""
        if self._lease is None:
            self._lease = self._once("loaded", self._acquire)
        return self._lease.loaded

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """What the model gave for the sample."""
        if self._outputs is None:
            self._outputs = self.loaded.forward(self.sample.forward)
        return self._outputs

    def _acquire(self) -> Lease:
        self._memory.reserve()
        lease = self.runner.pool.acquire(self.cell)
        self._memory.note_loaded(lease.loaded)
        return lease

    def measuring(self) -> AbstractContextManager[LoadedModel]:
        """The model for a `with` block in which it is timed: no other process of the run computes on its device."""
        return self.runner.measuring(self.cell, self.loaded)

    def on_cpu(self, dtype: str) -> AbstractContextManager[LoadedModel]:
        """The model on the CPU, for a `with` block."""
        self._memory.reserve()
        return self.runner.on_cpu(self.cell, dtype)

    @property
    def reference(self) -> Reference:
        """The same weights on the CPU in fp64."""
        return self._once("reference", self._compute_reference)  # type: ignore[no-any-return]

    def _compute_reference(self) -> Reference:
        self._memory.reserve()
        return self.runner.reference(self.cell)

    @property
    def pipe(self) -> Any:
        """The `transformers.pipeline` of the model's task on this device."""
        if self._pipe is None:
            from transformers import pipeline

            task = task_of(self.cell.model)
            if task.pipeline is None:
                raise HfAccelError(f"task {task.name!r} has no pipeline: {task.why_no_pipeline}", stage=Stage.RUN)
            model = self.loaded.pipeline_model()
            # Without a device, transformers moves the model to the first accelerator it finds; one with a device map
            # stays where it is, and takes no device.
            device = None if getattr(model, "hf_device_map", None) else model.device
            self._pipe = pipeline(task.pipeline, model=model, device=device, **self.source.processors())
        return self._pipe

    @property
    def claims(self) -> Sequence[Any]:
        """What the model class module says its models must make of their task."""
        return list(self._claims(self.pipe)) if self._claims else []

    def outcome_of(self, name: str) -> CheckOutcome | None:
        """The outcome of a check that has run on this cell."""
        return self.outcomes.get(name)

    def check(self, name: str, performance: PerformanceRequest | None = None) -> CheckOutcome:
        """Run a check by name; its failure, also by an exception, is an outcome.

        Args:
            name: The check.
            performance: What the check `performance` is to do, if not to measure at the run's points.

        Raises:
            KeyError: No check of that name is registered.
        """
        check = self.runner.checks[name]
        self.performance_request = performance or self.default_performance
        self._running, self._making = name, 0.0
        started = time.perf_counter()
        with at_stage(Stage.RUN if check.stage == Stage.COMPARE else check.stage):
            outcome = self._not_run(check) or self._judge(self._attempt(check))
        outcome.seconds = round(time.perf_counter() - started - self._making, 6)
        self.outcomes[name] = outcome
        self._memory.note()
        self._record.add(CheckFinished(self.facts(), outcome))
        return outcome

    def check_at_every_point(self, name: str) -> list[CheckOutcome]:
        """Run a check; `performance` once per point, so that a batch too large for the device hides no smaller one."""
        if name != PERFORMANCE:
            return [self.check(name)]
        return [
            self.check(name, replace(self.default_performance, points=(at,))) for at in self.default_performance.points
        ]

    def facts(self) -> dict[str, Any]:
        """What a record says beyond the outcomes: identity, placement, timings."""
        if self._lease is not None:
            loaded = self._lease.loaded
            placement = loaded.placement
            self._facts = {
                "implementation": placement.implementation,
                "placement": {**placement.to_json(), "bytes": loaded.nbytes, **self._placement_among_workers()},
                "timings": {stage: round(seconds, 6) for stage, seconds in loaded.timings.items()},
            }
        elif "loaded" in self._failures:
            self._facts = {"implementation": "unavailable"}
        return {**identity(self.cell, self.module), **self._facts}

    def result(self) -> CellResult:
        """The record of this cell."""
        return self._record.update(self.facts())

    def close(self) -> None:
        """Give the lease back to the pool."""
        self.facts()
        lease, self._lease, self._pipe, self._outputs = self._lease, None, None, None
        if lease is not None:
            lease.release()
        self._memory.release(len(self.outcomes))

    def _placement_among_workers(self) -> dict[str, Any]:
        """What a record says where processes share the machine: which device it was, and the most memory it took."""
        if not self._memory.is_shared:
            return {}
        peak, device = self._memory.peak_bytes(len(self.outcomes)), physical_device(self.cell.device)
        is_other = device != self.cell.device.id
        return {**({"peak_bytes": peak} if peak else {}), **({"physical_device": device} if is_other else {})}

    def _once(self, what: str, make: Callable[[], Any]) -> Any:
        if what in self._failures:
            raise self._failures[what][0]
        self._require_ready()
        started, others = time.perf_counter(), self._making
        try:
            return make()
        except Exception as error:
            self._failures[what] = (error, self._running)
            raise
        finally:
            # Making one thing may make another on the way: count the outermost only.
            self._making = others + time.perf_counter() - started

    def _not_run(self, check: Check) -> CheckOutcome | None:
        """Return the outcome of a check that a registry entry says not to run; `None` for one that runs."""
        for expectation in self.cell.model.expect:
            if not expectation.run and expectation.check in ("*", check.name) and expectation.covers(self.cell):
                reason = f"[NOTRUN] {expectation.reason} [{expectation.source}]"  # pytest's own word for it
                return CheckOutcome(check.name, Status.XFAILED, expectation.stage, reason, cause=expectation.cause)
        return None

    def _attempt(self, check: Check) -> CheckOutcome:
        from pytest_hfaccel.checkpoints.pretrained.packages import name_missing_package

        try:
            self._require_ready()
            with name_missing_package(self.cell.model):
                outcome: object = check.function(self)
                if not isinstance(outcome, CheckOutcome):
                    text = f"the check {check.name!r} returned {outcome!r}; return `passed(...)` or `failed(...)`"
                    raise TypeError(text)
                outcome.name = outcome.name or check.name
                return outcome
        except Exception as error:
            if is_device_lost(error):
                self.lose_device(check.name, error)
            first = next((name for known, name in self._failures.values() if known is error), check.name)
            # A model that is lost raises the same error whatever it is asked: the first check that met it reports it.
            self._failures.setdefault(f"met by {first}", (error, first))
            return _outcome_of(error, check.name, first)

    def lose_device(self, check: str, error: BaseException) -> None:
        """Note that a check left the device unusable: the other checks of the cell are not run."""
        self._failures.setdefault(_DEVICE, (error, check))
        self.runner.lose_device(self.cell, check, error)

    def _require_ready(self) -> None:
        """Raise if a dependency of the model is not installed, the machine is not fit, or the device is lost."""
        if not self._is_installed:
            require_installed(self.cell.model)
            self._is_installed = True
        if _DEVICE in self._failures:
            raise self._failures[_DEVICE][0]
        self.runner.require_device(self.cell.device)

    def _judge(self, outcome: CheckOutcome) -> CheckOutcome:
        if outcome.status == Status.INFRA_ERROR:
            return outcome  # no entry expects the machine to be at fault
        for expectation in self.cell.model.expect:
            if expectation.covers(self.cell) and self._is_about(expectation, outcome):
                return _apply_expectation(expectation, outcome)
        return outcome

    def _is_about(self, expectation: Expectation, outcome: CheckOutcome) -> bool:
        if expectation.stage not in _BEFORE_RUN or expectation.check not in ("", "*"):
            return expectation.check == outcome.name
        if self.cell.device == CLASS_LEVEL:
            # That the class is there says nothing about whether it loads.
            return self.runner.checks[outcome.name].stage == expectation.stage
        # The cell was expected not to get as far as a check: its first check says so, the others follow suit.
        return "loaded" in self._failures or not self.outcomes


def points_of_run(specs: Iterable[ModelSpec], config: RunConfig) -> list[Point]:
    """The batch sizes and sequence lengths at which a run measures some models; not all of them have lengths."""
    lengths = config.seq_lengths if any(varies_in_length(spec) for spec in specs) else ()
    return points_of(config.batch_sizes or (1,), lengths)


def identity(cell: Cell, module: str) -> dict[str, Any]:
    """The fields of a `CellResult` that are known before anything runs."""
    return {
        "cell": cell.id,
        "model": cell.model.name,
        "architecture": cell.model.architecture,
        "module": module,
        "task": cell.model.task,
        "device": cell.device.id,
        "dtype": cell.dtype,
        "weights": str(cell.weights.kind),
        "weights_reason": cell.weights.reason,
    }


def _outcome_of(error: Exception, check: str, first: str) -> CheckOutcome:
    """Return the outcome of a check that raised an error, which the check `first` was the first to meet.

    Our errors have a status and a stage, others are reported with their origin.
    """
    cause = cause_of_error(error)
    if is_fault_of_machine(error):
        status, stage, text = Status.INFRA_ERROR, Stage(getattr(error, "stage", Stage.RUN)), str(error)
    elif isinstance(error, HfAccelError):
        status, stage, text = Status(error.status), Stage(error.stage), str(error)
    else:
        status, stage = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR, Stage.RUN
        where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-4:]))
        text = f"{type(error).__name__}: {error}\n{where}".rstrip()
    if check != first and status != Status.UNAVAILABLE:
        known = getattr(error, "status", Status.ERROR)
        return CheckOutcome(check, Status.SKIPPED, stage, f"{NOT_REACHED} ({known}, see {first!r})")
    return CheckOutcome(check, status, stage, text, cause=cause)


def _apply_expectation(expectation: Expectation, outcome: CheckOutcome) -> CheckOutcome:
    """Turn an outcome that was expected to be a failure into `xfailed` or `xpassed`."""
    if outcome.status in (Status.PASSED, Status.XPASSED):
        outcome.status = Status.XPASSED
        outcome.stage = expectation.stage
        outcome.reason = (
            f"expected to fail at stage {expectation.stage!s} ({expectation.reason}), but it passed: "
            f"delete the entry at {expectation.source}"
        )
    elif outcome.stage == expectation.stage and (outcome.status.is_bad or outcome.status == Status.SKIPPED):
        outcome.status = Status.XFAILED
        outcome.reason = f"{expectation.reason} [{expectation.source}]\n{outcome.reason}"
        outcome.cause = expectation.cause or outcome.cause
    elif outcome.status.is_bad:
        outcome.reason = (
            f"{outcome.reason}\nThe entry at {expectation.source} expects a failure at stage "
            f"{expectation.stage!s}, not {outcome.stage!s}."
        )
    return outcome
