"""One cell from lease to record: what the plugin, the command line and `run_tests` all drive.

A `Runner` holds what a run shares; a `CellRun` is one cell of it. Nothing here knows about pytest.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.benchmark.measurement import Point, points_of, varies_in_length
from pytest_hfaccel.benchmark.measuring import PerformanceRequest
from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Stage
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, Cell, Expectation, ModelSpec
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.engine.expectations import against, not_run, outcome_of, repeated
from pytest_hfaccel.registry.requirements import require_installed

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel, ModelSource, SampleInputs
    from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
    from pytest_hfaccel.checks.base import Check, CheckRegistry
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.numerics.reference import Reference
    from pytest_hfaccel.pool import Lease, ResourcePool

_BEFORE_RUN = frozenset({Stage.RESOLVE, Stage.LOAD, Stage.CONVERT, Stage.COMPILE})
_SHARED_KEPT = 64
"""Checkpoints and references that stay in memory: those of some thirty models, more than a worker has at hand."""

PERFORMANCE = "performance"
"""The check that runs once per point, and only when asked for."""


class Runner:
    """What the cells of a run share: configuration, backends, checks, checkpoints and the pool.

    Args:
        config: What the user asked for.
        checks: The battery; the built-in one when not given.
        backends: The backends by device kind; the built-in ones and those of entry points when not given.
    """

    def __init__(
        self, config: RunConfig, *, checks: CheckRegistry | None = None, backends: Backends | None = None
    ) -> None:
        from pytest_hfaccel.checkpoints import CheckpointStore
        from pytest_hfaccel.checks import built_in_checks
        from pytest_hfaccel.pool import device_budget, open_run_pool

        self.config = config
        self.checks = checks if checks is not None else built_in_checks()
        self.backends = backends if backends is not None else Backends()
        self.store: CheckpointStore = CheckpointStore(
            config.cache_dir, trust_remote_code=config.trust_remote_code, allow_pickle=config.allow_pickle
        )
        self._kept: OrderedDict[Hashable, None] = OrderedDict()
        self.pool: ResourcePool = open_run_pool(self._load, device_budget(config.pool_memory))

    def open(self, cell: Cell, module: str = "", claims: Callable[[Any], Any] | None = None) -> CellRun:
        """Start a cell. Nothing is loaded before a check asks for it."""
        return CellRun(self, cell, module, claims)

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """The checkpoint of the cell's model, prepared once per model and weights."""
        key = ("checkpoint", cell.model.name, cell.weights.kind)
        return self._shared(key, lambda: self.store.prepare(cell.model, cell.weights))  # type: ignore[no-any-return]

    def reference(self, cell: Cell) -> Reference:
        """The reference of the cell's model; models that share a checkpoint (tiny ones of a class) share it."""
        from pytest_hfaccel.checkpoints.checkpoint import ReferenceSource
        from pytest_hfaccel.numerics.reference import compute_reference

        checkpoint = self.checkpoint(cell)
        lend = partial(self.on_cpu, cell)

        def load(dtype: str) -> LoadedModel:
            return self._load(_on_cpu(cell, dtype), ReferenceSource(checkpoint))

        checkpoint.require_fit()
        key = ("reference", checkpoint.fingerprint)
        return self._shared(key, lambda: compute_reference(checkpoint, load, lend))  # type: ignore[no-any-return]

    @contextmanager
    def on_cpu(self, cell: Cell, dtype: str) -> Iterator[LoadedModel]:
        """Give the cell's model on the CPU for a `with` block.

        A small one is leased, so that the run of the CPU's cell finds it loaded. A large one would fill the memory
        after its use, and a pool too small for it need not fail a check of another device: it is loaded and freed.
        """
        from pytest_hfaccel.numerics.reference import is_small

        here = _on_cpu(cell, dtype)
        if is_small(self.checkpoint(cell)):
            with self.pool.lease(here) as loaded:
                yield loaded
            return
        loaded = self._load(here)
        try:
            yield loaded
        finally:
            loaded.close()

    def run(self, cell: Cell, module: str = "", claims: Callable[[Any], Any] | None = None) -> CellResult:
        """Run every check that applies to a cell and return its record."""
        cell_run = self.open(cell, module, claims)
        try:
            for check in self.checks_of(cell):
                cell_run.check_at_every_point(check.name)
        finally:
            cell_run.close()
        return cell_run.result()

    def checks_of(self, cell: Cell) -> list[Check]:
        """The checks a cell has, in the order in which they run."""
        return [check for check in self.checks if has_check(cell, check, self.config)]

    def close(self) -> None:
        """Free everything the pool holds."""
        self.pool.close()

    def _shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Compute once per run, a failure included: a hub that timed out for one cell would time out for the next.

        Of the values only the last used are kept: a run over every class of transformers would fill the memory.
        """
        value, error = self.pool.shared(key, lambda: _attempted(make))
        if error is not None:
            raise error
        self._kept[key] = None
        self._kept.move_to_end(key)
        while len(self._kept) > _SHARED_KEPT:
            self.pool.forget_shared(self._kept.popitem(last=False)[0])
        return value

    def _load(self, cell: Cell, source: ModelSource | None = None) -> LoadedModel:
        """Load a cell's model: from its checkpoint, unless another source is given or the backend needs none."""
        backend = self.backends.for_kind(cell.device.kind)
        needs_checkpoint = kind_named(cell.device.kind).traits.needs_checkpoint
        return backend.load(cell, (source or self.checkpoint(cell)) if needs_checkpoint else None)  # type: ignore[arg-type]


def has_check(cell: Cell, check: Check, config: RunConfig) -> bool:
    """Whether a cell has a check in a run: of its level, one that applies to it, and optional ones only when asked."""
    level = "class" if cell.device == CLASS_LEVEL else "cell"
    return check.level == level and check.is_asked_for(config) and check.applies(cell)


def points_of_run(specs: Iterable[ModelSpec], config: RunConfig) -> list[Point]:
    """The batch sizes and sequence lengths at which a run measures some models; not all of them have lengths."""
    lengths = config.seq_lengths if any(varies_in_length(spec) for spec in specs) else ()
    return points_of(config.batch_sizes or (1,), lengths)


def _attempted(make: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error


class CellRun:
    """One cell of a run: the context of its checks, and the outcomes so far.

    What a check asks for (`loaded`, `reference`, ...) is made on first use and kept until `close`. A failure to make
    it is kept, too: the first check that meets it reports it, the others refer to that report.
    """

    def __init__(
        self, runner: Runner, cell: Cell, module: str = "", claims: Callable[[Any], Any] | None = None
    ) -> None:
        self.runner = runner
        self.cell = cell
        self.module = module
        self.outcomes: dict[str, CheckOutcome] = {}
        self.claim_source = claims
        self.performance_request = PerformanceRequest(tuple(points_of_run([cell.model], runner.config)))
        self._all: list[CheckOutcome] = []
        self._lease: Lease | None = None
        self._pipe: Any = None
        self._outputs: Mapping[str, torch.Tensor] | None = None
        self._failures: dict[str, tuple[Exception, str]] = {}
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
            self._lease = self._once("loaded", lambda: self.runner.pool.acquire(self.cell))
        return self._lease.loaded

    @property
    def outputs(self) -> Mapping[str, torch.Tensor]:
        """What the model gave for the sample."""
        if self._outputs is None:
            self._outputs = self.loaded.forward(self.sample.forward)
        return self._outputs

    def on_cpu(self, dtype: str) -> AbstractContextManager[LoadedModel]:
        """The model on the CPU, for a `with` block."""
        return self.runner.on_cpu(self.cell, dtype)

    @property
    def reference(self) -> Reference:
        """The same weights on the CPU in fp64."""
        return self._once("reference", lambda: self.runner.reference(self.cell))  # type: ignore[no-any-return]

    @property
    def pipe(self) -> Any:
        """The `transformers.pipeline` of the model's task on this device."""
        if self._pipe is None:
            from transformers import pipeline

            task = task_of(self.cell.model)
            if task.pipeline is None:
                raise HfAccelError(f"task {task.name!r} has no pipeline: {task.why_no_pipeline}", stage=Stage.RUN)
            model = self.loaded.pipeline_model()
            # Without a device, transformers moves the model to the first accelerator it finds.
            self._pipe = pipeline(task.pipeline, model=model, device=model.device, **self.source.processors())
        return self._pipe

    @property
    def claims(self) -> Sequence[Any]:
        """What the model class module says its models must make of their task."""
        return list(self.claim_source(self.pipe)) if self.claim_source else []

    def outcome_of(self, name: str) -> CheckOutcome | None:
        """The outcome of a check that has run on this cell."""
        return self.outcomes.get(name)

    def check(self, name: str) -> CheckOutcome:
        """Run a check by name; its failure, also by an exception, is an outcome.

        Raises:
            KeyError: No check of that name is registered.
        """
        check = self.runner.checks[name]
        self._running, self._making = name, 0.0
        started = time.perf_counter()
        outcome = self._not_run(check) or self._judge(self._attempt(check))
        outcome.seconds = round(time.perf_counter() - started - self._making, 6)
        self.outcomes[name] = outcome
        self._all.append(outcome)
        return outcome

    def check_at_every_point(self, name: str) -> list[CheckOutcome]:
        """Run a check; `performance` once per point, so that a batch too large for the device hides no smaller one."""
        if name != PERFORMANCE:
            return [self.check(name)]
        everywhere, outcomes = self.performance_request, []
        for point in everywhere.points:
            self.performance_request = replace(everywhere, points=(point,))
            outcomes.append(self.check(name))
        self.performance_request = everywhere
        return outcomes

    def facts(self) -> dict[str, Any]:
        """What a record says beyond the outcomes: identity, placement, timings."""
        if self._lease is not None:
            loaded = self._lease.loaded
            placement = loaded.placement
            self._facts = {
                "implementation": placement.implementation,
                "placement": {**placement.to_json(), "bytes": loaded.nbytes},
                "timings": {stage: round(seconds, 6) for stage, seconds in loaded.timings.items()},
            }
        elif "loaded" in self._failures:
            self._facts = {"implementation": "unavailable"}
        return {**identity(self.cell, self.module), **self._facts}

    def result(self) -> CellResult:
        """The record of this cell."""
        return CellResult(**self.facts(), checks=list(self._all))

    def close(self) -> None:
        """Give the lease back to the pool."""
        self.facts()
        lease, self._lease, self._pipe, self._outputs = self._lease, None, None, None
        if lease is not None:
            lease.release()

    def _once(self, what: str, make: Callable[[], Any]) -> Any:
        if what in self._failures:
            raise self._failures[what][0]
        self._require_installed()
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
        """The outcome of a check that an entry keeps from running here; `None` for one that runs."""
        for expectation in self.cell.model.expect:
            if not expectation.run and expectation.check in ("*", check.name) and expectation.covers(self.cell):
                return not_run(check.name, expectation)
        return None

    def _attempt(self, check: Check) -> CheckOutcome:
        from pytest_hfaccel.checkpoints.pretrained.packages import name_missing_package

        try:
            self._require_installed()
            with name_missing_package(self.cell.model):
                outcome: object = check.function(self)
                if not isinstance(outcome, CheckOutcome):
                    text = f"the check {check.name!r} returned {outcome!r}; return `passed(...)` or `failed(...)`"
                    raise TypeError(text)
                outcome.name = outcome.name or check.name
                return outcome
        except Exception as error:
            first = next((name for known, name in self._failures.values() if known is error), check.name)
            return outcome_of(check, error) if first == check.name else repeated(check.name, error, first)

    def _require_installed(self) -> None:
        """Run nothing of a model whose registry entry asks for what is not installed; looked up once per cell."""
        if not self._is_installed:
            require_installed(self.cell.model)
            self._is_installed = True

    def _judge(self, outcome: CheckOutcome) -> CheckOutcome:
        for expectation in self.cell.model.expect:
            if expectation.covers(self.cell) and self._is_about(expectation, outcome):
                return against(expectation, outcome)
        return outcome

    def _is_about(self, expectation: Expectation, outcome: CheckOutcome) -> bool:
        if expectation.stage not in _BEFORE_RUN or expectation.check not in ("", "*"):
            return expectation.check == outcome.name
        if self.cell.device == CLASS_LEVEL:
            # That the class is there says nothing about whether it loads.
            return self.runner.checks[outcome.name].stage == expectation.stage
        # The cell was expected not to get as far as a check: its first check says so, the others follow suit.
        return "loaded" in self._failures or not self.outcomes


def _on_cpu(cell: Cell, dtype: str) -> Cell:
    return Cell(cell.model, CPU, dtype, cell.weights)


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
