"""Support for pytest-xdist: controller and workers, their plan, and crashed workers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.results import Status
from pytest_hfaccel.plugin.processes.crashes import CrashReports, Death, NoteKeeper, kill_late, read_death
from pytest_hfaccel.plugin.reporting import PROPERTY, begin_run, reporters_of
from pytest_hfaccel.plugin.state import COLLECTED, NOTES, OPTIONS, SUSPECTS, WORKER_INPUT, session_of
from pytest_hfaccel.upstream.xdist import exit_code, stop_at_enough_failures, survive_deaths_at_start

if TYPE_CHECKING:
    from pytest_hfaccel.core.threads import SharedCores
    from pytest_hfaccel.plugin.collection import CollectedTests
    from pytest_hfaccel.plugin.processes.placement import GroupOrder


DIRECTORY = "hfaccel_directory"
"""The key of the directory in which workers write what they collected, and have their ledger."""
LEDGER = "ledger.sqlite"
"""The ledger's name there."""
VARIABLES = "hfaccel_variables"
"""The key of the environment variables that a worker is to set."""


class ParallelHooks:
    """Hooks for controller and workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._death = Death()
        self._reports = CrashReports(config)
        self._suspects: set[str] = set()
        self._is_over = threading.Event()
        self._directory: TemporaryDirectory[str] | None = None
        self._collected: CollectedTests | None = None
        self._nodeids: Sequence[str] = ()
        self._not_run_after: dict[str, list[str]] = {}
        self._session: pytest.Session | None = None
        self._cores: SharedCores | None = None
        self._started = 0
        if hasattr(config, "workerinput"):
            _take_place(config)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, which counts failures."""
        self._session = session

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        """Have workers that die while they are started be started again."""
        survive_deaths_at_start(config)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Keep a model's tests in one worker, unless the user chose a distribution of their own."""
        if not _wants_groups(config):
            return None
        from pytest_hfaccel.plugin.processes.scheduling import SchedulingByContent

        return SchedulingByContent(
            config, log, lambda: bool(self._collected and self._collected.tests), self._order_of_groups
        )

    def _order_of_groups(self) -> GroupOrder:
        from pytest_hfaccel.plugin.processes.placement import EarlierRuns, GroupOrder
        from pytest_hfaccel.pool.ledger import Ledger

        assert self._collected is not None  # noqa: S101 - it is what says that there are model classes
        assert self._directory is not None  # noqa: S101 - made when the first worker was
        options = self._config.stash[OPTIONS]
        earlier = EarlierRuns(options.reports_dir, self._config.rootpath)
        ledger = Ledger(Path(options.ledger or Path(self._directory.name) / LEDGER))
        earlier.tell(ledger)
        ledger.close()
        return GroupOrder(self._collected, earlier.durations)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send a worker the plan, and the directory in which it writes what it collected."""
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="hfaccel-")
            self._config.stash[NOTES] = Path(self._directory.name)
        from pytest_hfaccel.plugin.processes.placement import variables_of_worker

        plan = session_of(self._config).plan
        node.workerinput[WORKER_INPUT] = plan.to_bytes()
        node.workerinput[DIRECTORY] = self._directory.name
        node.workerinput[SUSPECTS] = sorted(self._suspects)
        node.workerinput[VARIABLES] = variables_of_worker(plan, self._started)
        self._started += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """In a worker: write what is collected, before xdist sends the node ids to the controller."""
        sent: dict[str, Any] = getattr(self._config, "workerinput", {})
        if DIRECTORY not in sent:
            return
        from pytest_hfaccel.plugin.collection import collected_tests, write_collected

        collected = collected_tests(session)
        write_collected(Path(sent[DIRECTORY]), collected)
        if not collected.tests:
            return
        if Path(sent[DIRECTORY]).is_dir():  # a worker on another machine has none
            keeper = NoteKeeper(self._config, Path(sent[DIRECTORY]), sent["workerid"])
            self._config.pluginmanager.register(keeper, "hfaccel-notes")
        from pytest_hfaccel.core.threads import SharedCores
        from pytest_hfaccel.hardware.cpu import read_cpu

        self._cores = SharedCores(max(1, read_cpu().cores // max(1, int(sent["workercount"]))))
        self._cores.apply()
        session_of(self._config).cores = self._cores

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ARG002 - all the same
        """In the controller: say what runs on what, or what is wrong with what was asked for."""
        if self._collected is not None or self._directory is None:
            return
        from pytest_hfaccel.plugin.collection import read_collected

        self._collected = read_collected(Path(self._directory.name))
        if self._collected.usage_error:
            raise pytest.UsageError(self._collected.usage_error)
        self._nodeids = ids
        self._config.stash[COLLECTED] = self._collected
        begin_run(self._config)
        if self._config.stash[OPTIONS].timeout:
            threading.Thread(target=self._watch, daemon=True).start()
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None and self._collected.header:
            terminal.ensure_newline()
            for line in self._collected.header:
                terminal.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Remove the directory; give the threads back."""
        self._is_over.set()
        if self._cores is not None:
            self._cores.undo()
        if self._directory is not None:
            self._directory.cleanup()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Add a worker's pool statistics to those of the run; find out how it died, if it did."""
        self._death = Death()
        if error and self._directory is not None:
            self._death = read_death(Path(self._directory.name), node.gateway.id, exit_code(node.gateway))
        if self._death.lost:
            self._suspects.add(self._death.lost)
            node.workeroutput = {}  # it has ended by itself, between two tests
        stats = json.loads(getattr(node, "workeroutput", {}).get(PROPERTY, "null"))
        if stats is not None:
            reporters_of(self._config).pool_stats.append(stats)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Add to xdist's report of a crashed worker how it died, and record it for the cell that it was running."""
        self._reports.complete(report, self._death)
        self._suspects |= {self._reports.device_of(crashitem)} - {""}
        self._not_run_after[crashitem] = getattr(sched, "not_run_after", {}).get(crashitem, [])

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller: after a worker's crash is reported, report the tests that are not run because of it."""
        self._reports.note(report)
        if report.nodeid not in self._not_run_after:
            return
        if self._session is not None:
            stop_at_enough_failures(self._session)
        left = self._not_run_after.pop(report.nodeid)
        reason = f"not run: the worker died of {report.nodeid!r}, a test of the same cell"
        self._reports.end_unrun(left, Status.SKIPPED, reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """In the controller: a test that is not run, although the run was not stopped, fails."""
        reason = "not run: no worker was left to run it (--max-worker-restart says how many may be replaced)"
        try:
            result = yield
        except (pytest.UsageError, pytest.exit.Exception):
            raise
        except Exception as error:
            reason = f"not run: the controller of pytest-xdist failed: {type(error).__name__}: {error}"
            self._reports.end_unrun(self._nodeids, Status.INCOMPLETE, reason)
            raise
        self._reports.end_unrun(self._nodeids, Status.INCOMPLETE, reason)
        return result

    def _watch(self) -> None:
        """In the controller: kill workers that hang, and cannot even end themselves."""
        while not self._is_over.wait(1.0) and self._directory is not None:
            kill_late(Path(self._directory.name))


def _wants_groups(config: pytest.Config) -> bool:
    """Whether the user left the distribution to us. xdist has put its own choice among the options by now."""
    asked = config.known_args_namespace  # typed, in `addopts` or in PYTEST_ADDOPTS
    return not asked.distload and asked.dist in ("no", "loadgroup")


def _take_place(config: pytest.Config) -> None:
    """In a worker: see the devices that the controller chose for it, and share their memory by its ledger."""
    sent: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    os.environ.update(sent.get(VARIABLES, {}))
    options, directory = config.stash[OPTIONS], Path(sent.get(DIRECTORY, ""))
    if not options.ledger and DIRECTORY in sent and directory.is_dir():
        config.stash[OPTIONS] = options.replace(ledger=str(directory / LEDGER))
