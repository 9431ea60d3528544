"""Where the plugin keeps its state: typed keys into pytest's stashes, never globals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.core.results import CheckOutcome
    from pytest_hfaccel.core.spec import Cell
    from pytest_hfaccel.engine.cell_run import CellRun
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.plugin.collection import CollectedTests
    from pytest_hfaccel.plugin.reporting import Reporters
    from pytest_hfaccel.plugin.sharding import Shard

WORKER_INPUT = "hfaccel_plan"
"""The key under which a worker of pytest-xdist finds the plan."""

SUSPECTS = "hfaccel_suspects"
"""The key under which a worker finds the ids of the devices on which processes have died."""

OPTIONS: pytest.StashKey[RunConfig] = pytest.StashKey()
"""On the config: what the user asked for."""

STARTED: pytest.StashKey[tuple[float, float]] = pytest.StashKey()
"""On the config: when the run began: wall clock, and monotonic clock."""

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""On the config: what this process collects and runs with; missing until a model class, or an option, asks for it."""

COLLECTED: pytest.StashKey[CollectedTests] = pytest.StashKey()
"""On the config: the tests of model classes that the run has."""

REPORTERS: pytest.StashKey[Reporters] = pytest.StashKey()
"""On the config of the process that writes: the stream of events and its consumers."""

NOTES: pytest.StashKey[Path] = pytest.StashKey()
"""On the config of a process that runs its tests in others: the directory in which those keep notes; see `crashes`."""

SHARD: pytest.StashKey[Shard | None] = pytest.StashKey()
"""On the config: the shard of a plan that this run runs."""

SHARD_PROBLEM: pytest.StashKey[str] = pytest.StashKey()
"""On the config: why the run is not the one that was planned."""

CELL_TEST: pytest.StashKey[CellTest] = pytest.StashKey()
"""On an item of a model class."""

OUTCOME: pytest.StashKey[CheckOutcome] = pytest.StashKey()
"""On an item: the outcome of its check."""

FACTS: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
"""On an item whose outcome comes from an earlier run: that run's facts about the cell."""

CELL_RUN: pytest.StashKey[CellRun] = pytest.StashKey()
"""On an item: the cell it ran on."""


class CellTest(NamedTuple):
    """What a test of a model class runs.

    Attributes:
        cell: The cell.
        check: The name under which its outcome is recorded.
        point: The point at which it measures, if it measures at several.
    """

    cell: Cell
    check: str
    point: Point | None


def session_of(config: pytest.Config) -> Session:
    """Return what the process collects and runs with; made when it is first asked for."""
    if SESSION not in config.stash:
        from pytest_hfaccel.engine.session import Session

        sent: dict[str, Any] = getattr(config, "workerinput", {})
        config.stash[SESSION] = Session(
            config.stash[OPTIONS],
            extend_backends=lambda backends: config.hook.pytest_hfaccel_backends(backends=backends),
            extend_checks=lambda checks: config.hook.pytest_hfaccel_checks(checks=checks),
            sent_plan=sent.get(WORKER_INPUT),
            # pytest's own option: as if no failure were expected.
            expects_failures=not config.getoption("runxfail", False),
            suspects=sent.get(SUSPECTS, ()),
        )
    return config.stash[SESSION]
