"""What is different under pytest-xdist. Registered only when xdist is there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.plugin.collector import PROPERTY
from pytest_hfaccel.plugin.keys import COLLECTOR, SESSION
from pytest_hfaccel.plugin.reporting import POOL_STATS
from pytest_hfaccel.plugin.session import WORKER_INPUT
from pytest_hfaccel.plugin.xdist_workers import how_worker_ended, survive_deaths_at_start

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.collected import CollectedTests

DIRECTORY = "hfaccel_directory"
"""The key under which workers are told the directory of `pytest_hfaccel.plugin.collected`."""


class ParallelHooks:
    """Hooks for controller and workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._death = ""
        self._directory: TemporaryDirectory[str] | None = None
        self._collected: CollectedTests | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        """Have workers that die while they are started be started again."""
        survive_deaths_at_start(config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Keep a model's tests in one worker, unless the user chose a distribution of their own."""
        if not _wants_groups(config):
            return None
        from pytest_hfaccel.plugin.scheduling import SchedulingByContent

        return SchedulingByContent(config, log, lambda: bool(self._collected and self._collected.tests))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what to collect, and where to say what it has collected."""
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="hfaccel-")
        node.workerinput[WORKER_INPUT] = self._config.stash[SESSION].plan.to_bytes()
        node.workerinput[DIRECTORY] = self._directory.name

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """In a worker: tell the controller what is collected, before xdist tells it the node ids."""
        sent: dict[str, Any] = getattr(self._config, "workerinput", {})
        if DIRECTORY not in sent:
            return
        from pytest_hfaccel.plugin.collected import describe_collected, write_collected

        collected = describe_collected(self._config.stash[SESSION], session.items)
        write_collected(Path(sent[DIRECTORY]), collected)
        if collected.tests:
            _share_cores(int(sent["workercount"]))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:  # noqa: ARG002 - the workers collect the same
        """In the controller: say what runs on what, or what is wrong with what was asked for."""
        if self._collected is not None or self._directory is None:
            return
        from pytest_hfaccel.plugin.collected import read_collected

        self._collected = read_collected(Path(self._directory.name))
        if self._collected.usage_error:
            raise pytest.UsageError(self._collected.usage_error)
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None and self._collected.header:
            terminal.ensure_newline()
            for line in self._collected.header:
                terminal.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Remove the directory."""
        if self._directory is not None:
            self._directory.cleanup()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take over a worker's pool statistics."""
        self._death = how_worker_ended(node) if error else ""
        stats = json.loads(getattr(node, "workeroutput", {}).get(PROPERTY, "null"))
        if stats is not None:
            self._config.stash[POOL_STATS].append(stats)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Book the death of a worker on the cell it was running."""
        collector = self._config.stash.get(COLLECTOR, None)
        test = self._collected.cell_and_check(crashitem) if self._collected is not None else None
        if collector is not None and test is not None:
            # Not `longreprtext`: it begins with the path of the interpreter.
            text = str(report.longrepr)
            reason = f"{text} ({self._death})" if self._death else text
            collector.add_crash(test[0], crashitem, test[1], reason)


def _wants_groups(config: pytest.Config) -> bool:
    """Whether the user left the distribution to us. xdist has put its own choice among the options by now."""
    asked = config.known_args_namespace  # typed, in `addopts` or in PYTEST_ADDOPTS
    return not asked.distload and asked.dist in ("no", "loadgroup")


def _share_cores(workers: int) -> None:
    """Keep the workers' thread pools from adding up to more threads than cores."""
    if os.environ.get("OMP_NUM_THREADS"):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // max(1, workers))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    if "torch" in sys.modules:  # by a module or a conftest that was collected
        sys.modules["torch"].set_num_threads(threads)
