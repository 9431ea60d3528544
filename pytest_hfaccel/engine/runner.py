"""Runs cells with what they share: backends, checks, checkpoints and the pool. See also `cell_run`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.core.config import expand_path
from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.errors import InfraError, first_line
from pytest_hfaccel.core.results import CellResult, Stage
from pytest_hfaccel.core.spec import CPU, Cell, Device
from pytest_hfaccel.core.stages import at_stage
from pytest_hfaccel.core.threads import torch_threads
from pytest_hfaccel.engine.cell_run import CellRun
from pytest_hfaccel.engine.plan import has_check

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel, ModelSource
    from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
    from pytest_hfaccel.checks.base import Check, CheckRegistry
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.threads import SharedCores
    from pytest_hfaccel.hardware.health import MachineHealth
    from pytest_hfaccel.numerics.reference import Reference
    from pytest_hfaccel.pool import ResourcePool

_SHARED_KEPT = 64
"""Checkpoints and references that stay in memory: those of some thirty models, more than a worker has at hand."""


_THREADS = "torch threads of a run without workers"


class Runner:
    """What the cells of a run share: configuration, backends, checks, checkpoints and the pool.

    Args:
        config: What the user asked for.
        checks: The battery; the built-in one when not given.
        backends: The backends by device kind; the built-in ones and those of entry points when not given.
        health: Looks at the machine before the first cell; at its memory and disks when not given.
        cores: The limit on this process's threads, where other workers share the cores with it.

    Raises:
        ConfigError: The ledger that `HFACCEL_LEDGER` names cannot be opened.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        checks: CheckRegistry | None = None,
        backends: Backends | None = None,
        health: MachineHealth | None = None,
        cores: SharedCores | None = None,
    ) -> None:
        from pytest_hfaccel.checkpoints import CheckpointStore
        from pytest_hfaccel.checks import built_in_checks
        from pytest_hfaccel.engine.memory import free_device_bytes
        from pytest_hfaccel.hardware.health import MachineHealth
        from pytest_hfaccel.pool import device_budget, open_run_pool
        from pytest_hfaccel.pool.account import DeviceAccount
        from pytest_hfaccel.pool.budget import parse_budget
        from pytest_hfaccel.pool.ledger import Ledger

        self.config = config
        self.checks = checks if checks is not None else built_in_checks()
        self.backends = backends if backends is not None else Backends()
        self.store: CheckpointStore = CheckpointStore(
            config.cache_dir, trust_remote_code=config.trust_remote_code, allow_pickle=config.allow_pickle
        )
        self.health = health or MachineHealth(directories_of(config))
        self.lost: dict[str, InfraError] = {}
        """By kind of device that this process cannot use any more: what it says to cells that come later."""
        self._kept: OrderedDict[Hashable, None] = OrderedDict()
        self._cores = cores
        self._elements: dict[tuple[str, str], int] = {}
        ledger = Ledger(expand_path(config.ledger, "HFACCEL_LEDGER")) if config.ledger else None
        budget = device_budget(config.pool_memory, free_device_bytes if ledger is not None else None)
        # With a ledger, a model that fits into what all processes share fits: as it would in a serial run.
        self.pool: ResourcePool = open_run_pool(
            self._load, budget if ledger is None else lambda device: self.account.limit(device)
        )
        is_share = isinstance(parse_budget(config.pool_memory), float)
        self.account = DeviceAccount(ledger, budget, self.pool, is_share=is_share)

    def open(self, cell: Cell, module: str = "", claims: Callable[[Any], Any] | None = None) -> CellRun:
        """Start a cell. Nothing is loaded before a check asks for it."""
        return CellRun(self, cell, module, claims)

    def require_device(self, device: Device) -> None:
        """Raise `InfraError` where the machine is not fit, or an earlier cell left the device unusable."""
        if device.kind in self.lost:
            raise self.lost[device.kind]
        self.health.require(device)

    def lose_device(self, cell: Cell, check: str, error: BaseException) -> None:
        """Note that this process cannot use the cell's kind of device any more."""
        self.lost.setdefault(
            cell.device.kind,
            InfraError(
                f"this process cannot use {cell.device.kind} any more since {cell.id} {check}: {first_line(error)}",
                hint="Workers (-n) and --hf-isolate run what comes after such an error in a new process.",
            ),
        )

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """The checkpoint of the cell's model, prepared once per model and weights."""
        key = ("checkpoint", cell.model.name, cell.weights.kind)
        with at_stage(Stage.LOAD):
            return self._shared(key, lambda: self._prepare(cell))  # type: ignore[no-any-return]

    def _prepare(self, cell: Cell) -> Checkpoint:
        """Prepare a checkpoint, with the memory for building real dimensions reserved."""
        if self.account.ledger is None:
            return self.store.prepare(cell.model, cell.weights)
        need = self.store.bytes_to_build(cell.model, cell.weights)
        building = self.account.reserve(f"building {cell.model.name}", {CPU: need}, {}) if need else None
        try:
            return self.store.prepare(cell.model, cell.weights)
        finally:
            if building is not None:
                building.release()

    def elements(self, cell: Cell) -> int:
        """How many numbers the checkpoint of the cell's model holds; 0 where it does not say."""
        from pytest_hfaccel.numerics.reference import count_elements

        key = cell.model.name, str(cell.weights.kind)
        if key not in self._elements:
            self._elements[key] = count_elements(self.checkpoint(cell))
        return self._elements[key]

    def reference_bytes(self, cell: Cell) -> int:
        """About how much memory the reference of the cell's model still takes to compute."""
        from pytest_hfaccel.numerics.reference import fp64_bytes

        return 0 if self.has_reference(cell) else fp64_bytes(self.checkpoint(cell))

    def has_reference(self, cell: Cell) -> bool:
        """Whether the reference of the cell's model has been computed."""
        if not kind_named(cell.device.kind).traits.needs_checkpoint:
            return False
        return ("reference", self.checkpoint(cell).fingerprint) in self._kept

    def expected_bytes(self, cell: Cell) -> int | None:
        """The bytes that the cell's model is about to take on its device, where its backend says so."""
        backend = self.backends.for_kind(cell.device.kind)
        return int(backend.expected_bytes(cell)) if hasattr(backend, "expected_bytes") else None

    @contextmanager
    def measuring(self, cell: Cell, loaded: LoadedModel) -> Iterator[LoadedModel]:
        """Give a loaded model to be timed, with its device, and the threads, that it has in a run without workers.

        A runtime that takes the number of threads when it compiles a model compiles it once more.
        """
        threads = self._serial_threads()
        traits = kind_named(cell.device.kind).traits
        with torch_threads(threads) if threads else nullcontext():
            compiles_again = threads and traits.fixes_threads and traits.uses_host_memory(cell.device.target)
            timed = self._load(cell) if compiles_again else loaded
            try:
                with self.account.alone(cell.device):
                    yield timed
            finally:
                if timed is not loaded:
                    timed.close()

    def _serial_threads(self) -> int | None:
        """How many threads torch would have without other workers; `None` where it has as many. Asked once a run."""
        ledger = self.account.ledger
        if ledger is None or self._cores is None or not self._cores.is_applied:
            return None
        known = ledger.measured(_THREADS)
        if not known:
            known = {_THREADS: self._cores.serial_threads()}
            ledger.remember(_THREADS, known)
        return known[_THREADS]

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
            with self.account.computing(cell.device):
                for check in self.checks_of(cell):
                    cell_run.check_at_every_point(check.name)
        finally:
            cell_run.close()
        return cell_run.result()

    def checks_of(self, cell: Cell) -> list[Check]:
        """The checks a cell has, in the order in which they run."""
        return [check for check in self.checks if has_check(cell, check, self.config)]

    def close(self) -> None:
        """Free everything in the pool."""
        self.pool.close()
        self.account.close()

    def stats(self) -> dict[str, Any]:
        """What pool and ledger counted, as plain JSON; also after `close`."""
        waits = self.account.stats()
        return {**self.pool.stats(), **({"ledger": waits} if waits else {})}

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
        """Load a cell's model from `source`, by default its checkpoint; some backends need none."""
        backend = self.backends.for_kind(cell.device.kind)
        needs_checkpoint = kind_named(cell.device.kind).traits.needs_checkpoint
        with at_stage(Stage.LOAD):
            return backend.load(cell, (source or self.checkpoint(cell)) if needs_checkpoint else None)  # type: ignore[arg-type]


def _attempted(make: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error


def directories_of(config: RunConfig) -> dict[str, Path]:
    """What a run writes to."""
    return {"the directory of reports": config.reports_dir, "the cache": config.cache_dir}


def _on_cpu(cell: Cell, dtype: str) -> Cell:
    return Cell(cell.model, CPU, dtype, cell.weights)
