"""What one pytest process collects and runs with; made when the first model class is met, not before."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.spec import Cell, ModelSpec
from pytest_hfaccel.engine.plan import Plan, make_plan
from pytest_hfaccel.plugin.selection import models_of_class
from pytest_hfaccel.plugin.without_pytest import module_name

if TYPE_CHECKING:
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.checks.base import CheckRegistry
    from pytest_hfaccel.engine.outcome_key import OutcomeKeys
    from pytest_hfaccel.engine.runner import Runner
    from pytest_hfaccel.plugin.model_class import ModelClassTests
    from pytest_hfaccel.plugin.replaying import Recorded
    from pytest_hfaccel.registry import Registry

WORKER_INPUT = "hfaccel_plan"


class HfSession:
    """The state of one pytest process. Everything is made on first use, so that other test suites pay nothing."""

    def __init__(self, pytest_config: pytest.Config, config: RunConfig) -> None:
        self._pytest_config = pytest_config
        self.config = config
        self.claimed: set[str] = set()
        self.patterns: set[str] = set()
        self._cells: dict[type[ModelClassTests], list[Cell]] = {}
        self._modules: dict[str, type[ModelClassTests]] = {}
        self._decided_by: dict[tuple[str, Cell], dict[str, str]] = {}
        self.started = False

    @cached_property
    def registry(self) -> Registry:
        """The registered models: the shipped file, then the user's."""
        from pytest_hfaccel.registry import load_registry

        return load_registry(
            self.config.registry_files,
            extra_kinds=self.backends.kinds(),
            cache_dir=self.config.cache_dir,
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
        """The backends: built in, from entry points, from hooks."""
        from pytest_hfaccel.backends import Backends

        backends = Backends()
        with _refusals_of("pytest_hfaccel_backends"):
            self._pytest_config.hook.pytest_hfaccel_backends(backends=backends)
        return backends

    @cached_property
    def checks(self) -> CheckRegistry:
        """The battery: built in, then from hooks."""
        from pytest_hfaccel.checks import built_in_checks

        checks = built_in_checks().copy()
        with _refusals_of("pytest_hfaccel_checks"):
            self._pytest_config.hook.pytest_hfaccel_checks(checks=checks)
        return checks

    @cached_property
    def extra_checks(self) -> list[str]:
        """The names of the checks that came from hooks."""
        from pytest_hfaccel.checks import built_in_checks

        built_in = built_in_checks()
        return [check.name for check in self.checks if check.name not in built_in]

    @cached_property
    def plan(self) -> Plan:
        """The decisions of the run: the controller's, when this is a worker."""
        sent: dict[str, Any] = getattr(self._pytest_config, "workerinput", {})
        if WORKER_INPUT in sent:
            return Plan.from_bytes(sent[WORKER_INPUT])
        return make_plan(self.config, self.registry, self.store, self.backends)

    @cached_property
    def recorded(self) -> Recorded:
        """What is known from the run before this one."""
        from pytest_hfaccel.plugin.replaying import Recorded

        return Recorded(self.plan.earlier, self.config.retry)

    @cached_property
    def _outcome_keys(self) -> OutcomeKeys:
        from pytest_hfaccel.engine.outcome_key import OutcomeKeys

        return OutcomeKeys(self.config)

    def decided_by(self, cell: Cell, model_class: type[ModelClassTests]) -> dict[str, str]:
        """What decides how the tests of a model class on a cell end; see `CellResult.decided_by`."""
        key = self.module_of(model_class), cell
        if key not in self._decided_by:
            from pytest_hfaccel.checkpoints.fingerprint import NOT_HERE

            file = inspect.getsourcefile(model_class)
            known = self._outcome_keys.decided_by(cell, Path(file) if file else None)
            if known["checkpoint"] == NOT_HERE:  # it is downloaded while the cell runs
                return known
            self._decided_by[key] = known
        return self._decided_by[key]

    @property
    def _runs_expected_failures(self) -> bool:
        """Whether pytest's own `--runxfail` was given: as if no failure were expected."""
        return bool(self._pytest_config.getoption("runxfail", False))

    @cached_property
    def runner(self) -> Runner:
        """What runs the cells."""
        from pytest_hfaccel.engine.runner import Runner

        self.started = True
        return Runner(self.config, checks=self.checks, backends=self.backends)

    def cells_of(self, model_class: type[ModelClassTests]) -> list[Cell]:
        """The cells a class module spans in this run.

        Raises:
            HfAccelError: What the class says of itself cannot be, or its model cannot be found.
        """
        if model_class not in self._cells:
            specs = models_of_class(model_class, self.plan, self.registry)
            if self._runs_expected_failures:
                specs = [replace(spec, expect=()) for spec in specs]
            self.claimed |= {spec.name for spec in specs}
            self.patterns |= set(model_class.architectures)
            self._cells[model_class] = self.plan.cells(specs, self.store)
            if self._cells[model_class]:
                self.module_of(model_class)
        return self._cells[model_class]

    def module_of(self, model_class: type[ModelClassTests]) -> str:
        """The name under which a class's records stand in reports; no two classes of a run have the same.

        That is its module's (`bert` for `test_hf_bert.py`), and for a further class of such a module more of its path.
        """
        short = module_name(model_class)
        longer = f"{short}.{model_class.__qualname__}", f"{model_class.__module__}.{model_class.__qualname__}"
        return next(name for name in (short, *longer) if self._modules.setdefault(name, model_class) is model_class)

    def unclaimed(self) -> list[ModelSpec]:
        """The models the user named that no collected class module tests."""
        return [spec for spec in self.plan.named if spec.name not in self.claimed]

    def close(self) -> dict[str, Any] | None:
        """Free everything; return the pool's statistics if anything ran."""
        if not self.started:
            return None
        self.runner.close()
        return self.runner.pool.stats()


@contextmanager
def _refusals_of(hook: str) -> Iterator[None]:
    """Tell what a registry refuses to take from a hook as the mistake it is."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{hook}: {error}") from error


def require_database_package(config: RunConfig) -> None:
    """Refuse a run whose database could not be written for want of a package: before it starts, not after hours.

    Raises:
        ConfigError: A database was asked for, and duckdb is not installed, or its place is a directory.
    """
    from importlib.util import find_spec

    if config.database_path is not None and config.database_path.is_dir():
        raise ConfigError(f"--hf-database (BENCHMARK_DB_PATH) {config.database}: a directory; name a file in it.")
    if config.database and config.database_path is not None and find_spec("duckdb") is None:
        raise ConfigError(
            f"--hf-database (BENCHMARK_DB_PATH) {config.database}: the package duckdb is not installed.",
            hint="Install it with: pip install 'pytest-hfaccel[predict]'. `--hf-database none` does without.",
        )


def usage_error(error: HfAccelError) -> pytest.UsageError:
    """Wrap an error of ours so that pytest prints it without a traceback and exits with code 4."""
    return pytest.UsageError(str(error))
