"""The objects of one process: registry, backends, checks, plan, runner. Shared by pytest, scripts and Python calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.spec import Cell
from pytest_hfaccel.engine.model_selection import default_of_class, models_of_class, module_name
from pytest_hfaccel.engine.plan import Plan, class_level, has_check, make_plan

if TYPE_CHECKING:
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.checks.base import Check, CheckRegistry
    from pytest_hfaccel.core.threads import SharedCores
    from pytest_hfaccel.engine.model_class import ModelClassTests
    from pytest_hfaccel.engine.outcome_key import OutcomeKeys
    from pytest_hfaccel.engine.resume import ResumedOutcomes
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.registry import Registry


class Session:
    """Everything is made on first use, so that a process that runs nothing pays nothing.

    Args:
        config: What the user asked for.
        extend_backends: Registers further backends.
        extend_checks: Registers further checks.
        sent_plan: The plan of the process that started this one as a worker.
        expects_failures: Whether the registry's expected failures count; else each failure is one.
        registry: The models that are known; read from the shipped and the user's files when not given.
        suspects: Ids of devices on which a process has died: they have to compute something before a cell runs.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        extend_backends: Callable[[Backends], object] | None = None,
        extend_checks: Callable[[CheckRegistry], object] | None = None,
        sent_plan: bytes | None = None,
        expects_failures: bool = True,
        registry: Registry | None = None,
        suspects: Collection[str] = (),
    ) -> None:
        self.config = config
        self._extend_backends = extend_backends
        self._extend_checks = extend_checks
        self._sent_plan = sent_plan
        self._expects_failures = expects_failures
        self.suspects = set(suspects)
        if registry is not None:
            self.registry = registry
        self.claimed: set[str] = set()
        self.patterns: set[str] = set()
        self._cells: dict[type[ModelClassTests], list[Cell]] = {}
        self._class_level: dict[type[ModelClassTests], list[Cell]] = {}
        self._cells_of_check: dict[tuple[type[ModelClassTests], str], list[Cell]] = {}
        self._names: dict[type[ModelClassTests], str] = {}
        self._modules: dict[str, type[ModelClassTests]] = {}
        self._decided_by: dict[tuple[str, str], dict[str, str]] = {}
        self._has_runner = False
        self.cores: SharedCores | None = None
        """The limit on the threads of a worker; set before anything runs."""

    @cached_property
    def registry(self) -> Registry:
        """The registered models: the shipped file, then the user's."""
        from pytest_hfaccel.registry import load_registry

        return load_registry(
            self.config.registry_files, extra_kinds=self.backends.kinds(), cache_dir=self.config.cache_dir
        )

    @cached_property
    def store(self) -> CheckpointStore:
        """Where weights come from."""
        from pytest_hfaccel.checkpoints import CheckpointStore

        return CheckpointStore(
            self.config.cache_dir,
            trust_remote_code=self.config.trust_remote_code,
            allow_pickle=self.config.allow_pickle,
        )

    @cached_property
    def backends(self) -> Backends:
        """The backends: built in, of devices that registry files describe, from entry points, from hooks."""
        from pytest_hfaccel.backends import Backends

        if self.config.registries:
            from pytest_hfaccel.registry.devices import register_devices

            register_devices(self.config.registry_files)
        backends = Backends()
        if self._extend_backends is not None:
            with _refusals_of("pytest_hfaccel_backends"):
                self._extend_backends(backends)
        return backends

    @cached_property
    def checks(self) -> CheckRegistry:
        """The battery: built in, then from hooks."""
        from pytest_hfaccel.checks import built_in_checks

        checks = built_in_checks()
        if self._extend_checks is not None:
            with _refusals_of("pytest_hfaccel_checks"):
                self._extend_checks(checks)
        return checks

    @cached_property
    def added_checks(self) -> list[Check]:
        """The checks that came from hooks."""
        from pytest_hfaccel.checks import built_in_checks

        built_in = built_in_checks()
        return [check for check in self.checks if check.name not in built_in]

    @cached_property
    def plan(self) -> Plan:
        """The decisions of the run: the controller's, when this is a worker."""
        if self._sent_plan is not None:
            _ = self.backends  # what its devices can do is known once their kinds are
            return Plan.from_bytes(self._sent_plan)
        return make_plan(self.config, self.registry, self.store, self.backends)

    @cached_property
    def resumed(self) -> ResumedOutcomes:
        """What is known from the run before this one."""
        from pytest_hfaccel.engine.resume import ResumedOutcomes

        return ResumedOutcomes(self.plan.earlier, self.config.retry)

    @cached_property
    def _outcome_keys(self) -> OutcomeKeys:
        from pytest_hfaccel.engine.outcome_key import OutcomeKeys

        return OutcomeKeys(self.config)

    def decided_by(self, cell: Cell, model_class: type[ModelClassTests]) -> dict[str, str]:
        """What decides how the tests of a model class on a cell end; see `CellResult.decided_by`."""
        key = self.module_of(model_class), cell.id
        if key not in self._decided_by:
            from pytest_hfaccel.checkpoints.fingerprint import NOT_HERE

            file = inspect.getsourcefile(model_class)
            known = self._outcome_keys.decided_by(cell, Path(file) if file else None)
            if known["checkpoint"] == NOT_HERE:  # it is downloaded while the cell runs
                return known
            self._decided_by[key] = known
        return self._decided_by[key]

    @cached_property
    def runner(self) -> Runner:
        """What runs the cells."""
        from pytest_hfaccel.engine.runner import Runner, directories_of
        from pytest_hfaccel.hardware.confirm import confirm_device
        from pytest_hfaccel.hardware.health import MachineHealth

        self._has_runner = True
        confirm = partial(confirm_device, backends=self.backends)
        health = MachineHealth(directories_of(self.config), confirm, self.suspects, self.plan.absent)
        return Runner(self.config, checks=self.checks, backends=self.backends, health=health, cores=self.cores)

    @property
    def lost_devices(self) -> bool:
        """Whether an error has left this process without one of its devices."""
        return self._has_runner and bool(self.runner.lost)

    def cells_of(self, model_class: type[ModelClassTests]) -> list[Cell]:
        """The cells a class module spans in this run.

        Raises:
            HfAccelError: The class has invalid attributes, or its model cannot be found.
        """
        if model_class not in self._cells:
            specs = models_of_class(model_class, self.plan, self.registry)
            if not self._expects_failures:
                specs = [replace(spec, expect=()) for spec in specs]
            self.claimed |= {spec.name for spec in specs}
            self.patterns |= set(model_class.architectures)
            cells = self.plan.cells(specs, self.store)
            if self.config.all_models and (self.config.all_hardware or not self.config.devices):
                default = default_of_class(model_class, self.registry)
                cells = [
                    cell for cell in cells if cell.model.name == default or not cell.device.traits.default_model_only
                ]
            self._cells[model_class] = cells
            if self._cells[model_class]:
                self.module_of(model_class)
        return self._cells[model_class]

    def cells_of_check(self, model_class: type[ModelClassTests], name: str) -> list[Cell]:
        """The cells of a class module that a test runs on: those its check applies to, or all if it is no check."""
        key = model_class, name
        if key not in self._cells_of_check:
            cells = self.cells_of(model_class)
            if name in self.checks:
                check = self.checks[name]
                candidates = self._class_level_of(model_class) if check.level == "class" else cells
                cells = [cell for cell in candidates if has_check(cell, check, self.config)]
            self._cells_of_check[key] = cells
        return self._cells_of_check[key]

    def _class_level_of(self, model_class: type[ModelClassTests]) -> list[Cell]:
        """Return the same objects for every check: pytest keeps a fixture while its parameter is the same object."""
        if model_class not in self._class_level:
            self._class_level[model_class] = class_level(self.cells_of(model_class))
        return self._class_level[model_class]

    def module_of(self, model_class: type[ModelClassTests]) -> str:
        """The name of a class in reports: `bert` for `test_hf_bert.py`; for a further class there, more of its path."""
        if model_class in self._names:
            return self._names[model_class]
        short = module_name(model_class)
        longer = f"{short}.{model_class.__qualname__}", f"{model_class.__module__}.{model_class.__qualname__}"
        names = (short, *longer)
        name = next(name for name in names if self._modules.setdefault(name, model_class) is model_class)
        self._names[model_class] = name
        return name

    def mistakes(self) -> str:
        """Say what only shows when everything is collected; empty when nothing is wrong.

        That is a named model that no collected class tests, and an expected failure of a check that nobody registers.
        """
        try:
            unknown = self.registry.unknown_checks(check.name for check in self.checks) if self.claimed else []
        except HfAccelError as error:
            return str(error)
        missing = [spec for spec in self.plan.named if spec.name not in self.claimed] if self.config.models else []
        if unknown or not missing:
            return "\n".join(unknown)
        lines = [f"--hf-model {spec.name}: no collected model class tests {spec.architecture}." for spec in missing]
        lines.append(f"The collected classes test: {', '.join(sorted(self.patterns)) or 'nothing'}.")
        lines.append("Collect the module of that class (model_classes/), or write one: a class with `architectures`.")
        return "\n".join(lines)

    def close(self) -> dict[str, Any] | None:
        """Free everything; return the pool's statistics if anything ran."""
        if not self._has_runner:
            return None
        self.runner.close()
        return self.runner.stats()


@contextmanager
def _refusals_of(hook: str) -> Iterator[None]:
    """Tell what a registry refuses to take from a hook as the mistake it is."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{hook}: {error}") from error
