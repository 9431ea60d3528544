"""The pytest plugin: hooks only. Each one hands over to the module that has the idea.

This module is loaded at every start of pytest, also for suites that have no model classes. It imports nothing that
is not needed for declaring options; the rest is imported by the hooks that need it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.plugin.fixtures import (
    cell,
    check,
    hfaccel_cell_run,
    inputs,
    loaded,
    measuring_point,
    pipe,
    reference,
    resource_pool,
)
from pytest_hfaccel.plugin.keys import COLLECTED, COLLECTOR, SESSION
from pytest_hfaccel.plugin.options import add_options, read_options, spell_out_bare_flags

__all__ = [
    "cell",
    "check",
    "hfaccel_cell_run",
    "inputs",
    "loaded",
    "measuring_point",
    "pipe",
    "reference",
    "resource_pool",
]

_MARKER = (
    "hf(model, architecture, device, dtype, weights, check, level): set on every test of a model class, "
    "for -m \"hf(device='openvino') and not hf(check='memory')\""
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Read a flag whose value is optional so that it takes no path."""
    spell_out_bare_flags(early_config, parser, args)
    return (yield)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks we offer."""
    from pytest_hfaccel.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and make room for the state of this process."""
    from pytest_hfaccel.plugin.session import HfSession, usage_error

    config.addinivalue_line("markers", _MARKER)
    try:
        config.stash[SESSION] = HfSession(config, read_options(config))
    except HfAccelError as error:
        raise usage_error(error) from None
    if not hasattr(config, "workerinput"):
        from pytest_hfaccel.plugin.reporting import make_collector

        config.stash[COLLECTOR] = make_collector(config)
    if config.pluginmanager.hasplugin("xdist"):
        from pytest_hfaccel.plugin.parallel import ParallelHooks

        config.pluginmanager.register(ParallelHooks(config), "hfaccel-parallel")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Decide what runs before anything is collected, so that a mistake in an option is one clear message."""
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.plugin.session import require_database_package, usage_error

    ours = session.config.stash[SESSION]
    if ours.config != RunConfig():
        try:
            require_database_package(ours.config)
            _ = ours.plan
        except HfAccelError as error:
            raise usage_error(error) from None


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> list[pytest.Item] | None:
    """Leave out the model classes, and the tests of their batteries, that have nothing to run on."""
    from pytest_hfaccel.plugin.collection import has_cells, is_model_class

    session = collector.config.stash[SESSION]
    owner = getattr(collector, "obj", None)
    try:
        if is_model_class(obj) and name.startswith("Test") and getattr(obj, "__test__", True):
            return None if has_cells(session, obj) else []
        if is_model_class(owner) and name.startswith("test_"):
            return None if has_cells(session, owner, name) else []
    except HfAccelError as error:
        raise collector.CollectError(str(error)) from None
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of a model class its cells."""
    from pytest_hfaccel.plugin.collection import is_model_class, parametrize

    if is_model_class(metafunc.cls):
        parametrize(metafunc, metafunc.config.stash[SESSION])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose among the tests of model classes, mark them, and let those that measure use pytest-benchmark."""
    from pytest_hfaccel.plugin.benchmarking import give_benchmark
    from pytest_hfaccel.plugin.collection import leave_to_others, mark

    leave_to_others(config, items)
    mark(items)
    give_benchmark(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note what is collected, count the selected tests of each cell, and refuse a named model that nobody tests."""
    from pytest_hfaccel.plugin.collection import collected_tests, count_per_cell
    from pytest_hfaccel.plugin.selection import mistakes_of_run

    count_per_cell(session.items)
    collected_tests(session)
    is_worker = hasattr(session.config, "workerinput")  # the controller speaks for its workers
    if not is_worker and (problem := mistakes_of_run(session.config.stash[SESSION])):
        raise pytest.UsageError(problem)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what runs on what, with which weights and why."""
    return config.stash[COLLECTED].header


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Begin the run's folder, before anything runs whose outcome could not be written."""
    from pytest_hfaccel.plugin.reporting import begin

    if not (session.config.option.collectonly or session.testsfailed):
        begin(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test alone that ended the run which this one goes on with."""
    from pytest_hfaccel.plugin.replaying import refuse_crashed

    refuse_crashed(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what is known about the cell to the test's report."""
    from pytest_hfaccel.plugin.reporting import attach

    report = yield
    attach(item, call, report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Free the pool and write the reports."""
    from pytest_hfaccel.plugin.reporting import finish

    finish(session)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table model x device and where the reports are."""
    from pytest_hfaccel.plugin.reporting import print_summary

    print_summary(terminalreporter, config)
