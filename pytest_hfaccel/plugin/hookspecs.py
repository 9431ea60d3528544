"""The hooks this plugin offers to other plugins and to `conftest.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.checks.base import CheckRegistry
    from pytest_hfaccel.core.events import Consumer, RunFinished
    from pytest_hfaccel.core.results import CellResult


@pytest.hookspec
def pytest_hfaccel_backends(backends: Backends) -> None:
    """Register your own backends.

    Called once per process (in every worker of a parallel run), before the first cell is collected. Call
    `backends.register(kind, backend)`; the return value is ignored. `--hf-device kind` then selects it. A backend with
    `probe()` and `confirm()` (`pytest_hfaccel.backends.DeviceProbe`) reports which of its devices this machine has.

    Args:
        backends: The registry of the run. Registering a kind that already has a backend raises `ValueError`.
    """


@pytest.hookspec
def pytest_hfaccel_checks(checks: CheckRegistry) -> None:
    """Register your own checks; each becomes a test `test_<name>[<cell>]` of every model class.

    Called once per process, before the first cell is collected. Use `@checks.check("name", stage=..., level=...)`
    or `checks.add(Check(...))`; the return value is ignored.

    Args:
        checks: The registry of the run. A name that is taken raises `ValueError`.
    """


@pytest.hookspec
def pytest_hfaccel_cell_finished(result: CellResult) -> None:
    """Look at a cell that has just finished.

    Called in the process that writes the reports (under pytest-xdist the controller), once per cell, after its
    record is in the journal. The return value is ignored.

    Args:
        result: The record. It is plain data; changing it changes what the reports say.
    """


@pytest.hookspec
def pytest_hfaccel_reporters(reporters: list[Consumer]) -> None:
    """Add consumers of the run's events: append functions of one argument, the event.

    Called once, in the process that writes the reports (under pytest-xdist the controller), before the first test runs.
    The events are those of `pytest_hfaccel.core.events`; `isinstance` or `match` tells which one it is. A consumer that
    raises gets no further events, and the run ends with exit code 3 and what it raised.

    Args:
        reporters: The consumers. Ours, which write journal and reports, come before them.
    """


@pytest.hookspec
def pytest_hfaccel_run_finished(run: RunFinished, directory: Path | None) -> None:
    """Look at a run that is over: its header, the records of all cells, and how it ended.

    Called once, in the process that writes the reports, after they are written.

    Args:
        run: The event; plain data.
        directory: The run's folder; `None` where it could not be written.
    """
