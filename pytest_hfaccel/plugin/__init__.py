"""The pytest plugin: hooks only, each a call of the module that does the work.

pytest loads this module at every start, also for suites that have no model classes. It imports what declaring options
needs, and nothing else: the hooks import the rest once a model class has been met or an option was set.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.plugin.options import add_options, read_options, spell_out_bare_flags
from pytest_hfaccel.plugin.state import CELL_TEST, COLLECTED, OPTIONS, REPORTERS, SESSION, STARTED, session_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_hfaccel.pool import ResourcePool

_MARKER = (
    "hf(model, architecture, device, dtype, weights, check, level): set on every test of a model class, "
    "for -m \"hf(device='openvino') and not hf(check='memory')\""
)


@pytest.fixture(scope="session")
def hf_pool(pytestconfig: pytest.Config) -> ResourcePool:
    """The pool of loaded models of this process."""
    return session_of(pytestconfig).runner.pool


@pytest.fixture(scope="session")
def resource_pool(hf_pool: ResourcePool) -> ResourcePool:
    """The former name of `hf_pool`."""
    from pytest_hfaccel.plugin.fixtures import warn_of_old_name

    warn_of_old_name("resource_pool", "hf_pool")
    return hf_pool


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Take over a plan's arguments; keep a flag with an optional value from taking the path after it for its value."""
    if "HFACCEL_PLAN" in os.environ or any(text.startswith("--hf-plan") for text in args):
        from pytest_hfaccel.plugin.sharding import add_planned_arguments

        add_planned_arguments(early_config, parser, args)
    spell_out_bare_flags(early_config, parser, args)
    return (yield)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks we offer."""
    from pytest_hfaccel.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options."""
    from pytest_hfaccel.core.errors import HfAccelError

    config.addinivalue_line("markers", _MARKER)
    config.stash[STARTED] = time.time(), time.monotonic()
    try:
        config.stash[OPTIONS] = read_options(config)
    except HfAccelError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("dist", "no") != "no" or hasattr(config, "workerinput"):
        from pytest_hfaccel.plugin.processes.workers import ParallelHooks

        config.pluginmanager.register(ParallelHooks(config), "hfaccel-parallel")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Decide what runs before anything is collected, so that a mistake in an option is one clear message."""
    if session.config.stash[OPTIONS].is_asked_for:
        from pytest_hfaccel.plugin.collection import make_plan

        make_plan(session.config)


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> list[pytest.Item] | None:
    """Leave out the model classes, and the tests of their batteries, that have nothing to run on."""
    if "pytest_hfaccel.engine.model_class" not in sys.modules:
        return None  # no model class has been imported
    from pytest_hfaccel.plugin.collection import skip_without_cells

    return skip_without_cells(collector, name, obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of a model class its cells."""
    if metafunc.cls is not None and "hf_cell" in metafunc.fixturenames:
        from pytest_hfaccel.plugin.collection import parametrize

        parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose among the tests of model classes, mark them, and let those that measure use pytest-benchmark."""
    if SESSION in config.stash:
        from pytest_hfaccel.plugin.benchmarking import give_benchmark
        from pytest_hfaccel.plugin.collection import deselect_shadowed, mark_items

        mark_items(items)
        deselect_shadowed(config, items)
        give_benchmark(items)


# After -k, -m and --deselect, before the terminal counts what is left.
@pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
def pytest_hfaccel_keep_shard(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one shard of a plan."""
    if config.stash[OPTIONS].plan:
        from pytest_hfaccel.plugin.sharding import keep_shard

        keep_shard(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what is collected, and refuse a named model that no class tests."""
    if SESSION in session.config.stash:
        from pytest_hfaccel.plugin.collection import finish_collection

        finish_collection(session)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what runs on what, with which weights and why."""
    collected = config.stash.get(COLLECTED, None)
    return collected.header if collected is not None else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Make the run's folder before the first test, so that a folder that cannot be written costs no results.

    With `--hf-isolate`, then run the tests, each model's in a process.
    """
    config = session.config
    collected = config.stash.get(COLLECTED, None)
    failed = session.testsfailed and not config.option.continue_on_collection_errors
    if collected is None or not collected.tests or config.option.collectonly or failed:
        return None
    from pytest_hfaccel.plugin.reporting import begin_run

    options = config.stash[OPTIONS]
    if options.ledger:
        from pytest_hfaccel.plugin.processes.placement import TurnTaking

        config.pluginmanager.register(TurnTaking(config), "hfaccel-turns")
    if options.isolate or options.timeout:
        from pytest_hfaccel.plugin.processes.isolation import IsolatedRun, is_isolated

        if is_isolated(config):
            begin_run(config)
            IsolatedRun(session).run()
            return True
    begin_run(config)
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Do not run a test that crashed the resumed run."""
    if CELL_TEST in item.stash:
        from pytest_hfaccel.plugin.fixtures import refuse_crashed

        refuse_crashed(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what is known about the cell to the test's report."""
    report = yield
    if CELL_TEST in item.stash:
        from pytest_hfaccel.plugin.reporting import attach_outcome

        attach_outcome(item, call, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Free the pool and write the reports."""
    if REPORTERS in session.config.stash or SESSION in session.config.stash:
        from pytest_hfaccel.plugin.reporting import finish_run

        finish_run(session)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table model x device and where the reports are."""
    if REPORTERS in config.stash:
        from pytest_hfaccel.plugin.reporting import print_summary

        print_summary(terminalreporter, config)
