"""Support for pytest-xdist: controller and workers, their plan, and crashed workers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.events import CheckFinished
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.plugin.reporting import PROPERTY, begin_run, outcome_properties, reporters_of
from pytest_hfaccel.plugin.state import COLLECTED, WORKER_INPUT, session_of
from pytest_hfaccel.upstream.xdist import exit_code, stop_at_enough_failures, survive_deaths_at_start

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.collection import CollectedTests


DIRECTORY = "hfaccel_directory"
"""The key of the directory in which workers write what they collected."""


class ParallelHooks:
    """Hooks for controller and workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._death = ""
        self._directory: TemporaryDirectory[str] | None = None
        self._collected: CollectedTests | None = None
        self._nodeids: Sequence[str] = ()
        self._decided: set[str] = set()
        self._not_run_after: dict[str, list[str]] = {}
        self._session: pytest.Session | None = None

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
        from pytest_hfaccel.plugin.scheduling import SchedulingByContent

        return SchedulingByContent(config, log, lambda: bool(self._collected and self._collected.tests))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send a worker the plan, and the directory in which it writes what it collected."""
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="hfaccel-")
        node.workerinput[WORKER_INPUT] = session_of(self._config).plan.to_bytes()
        node.workerinput[DIRECTORY] = self._directory.name

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """In a worker: write what is collected, before xdist sends the node ids to the controller."""
        sent: dict[str, Any] = getattr(self._config, "workerinput", {})
        if DIRECTORY not in sent:
            return
        from pytest_hfaccel.plugin.collection import collected_tests, write_collected

        collected = collected_tests(session)
        write_collected(Path(sent[DIRECTORY]), collected)
        if collected.tests:
            _share_cores(int(sent["workercount"]))

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
        """Add a worker's pool statistics to those of the run."""
        self._death = _how_it_ended(node) if error else ""
        stats = json.loads(getattr(node, "workeroutput", {}).get(PROPERTY, "null"))
        if stats is not None:
            reporters_of(self._config).pool_stats.append(stats)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Add to xdist's report of a crashed worker how it died, and record it for the cell that it was running."""
        reason = str(report.longrepr)  # not `longreprtext`: it begins with the path of the interpreter
        if self._death:
            report.longrepr = reason = f"{reason} ({self._death})"
        if crashitem in self._decided:
            report.when = "teardown"  # an error beside the outcome that the test has had, as pytest has it
        self._attach_outcome(report, Status.CRASHED, reason)
        self._not_run_after[crashitem] = getattr(sched, "not_run_after", {}).get(crashitem, [])

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller: after a worker's crash is reported, report the tests that are not run because of it."""
        if report.when != "setup" or not report.passed:
            self._decided.add(report.nodeid)
        if report.nodeid not in self._not_run_after:
            return
        if self._session is not None:
            stop_at_enough_failures(self._session)
        left = self._not_run_after.pop(report.nodeid)
        self._end_unrun(left, Status.SKIPPED, f"not run: the worker died of {report.nodeid!r}, a test of the same cell")

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
            self._end_unrun(self._nodeids, Status.INCOMPLETE, reason)
            raise
        self._end_unrun(self._nodeids, Status.INCOMPLETE, reason)
        return result

    def _end_unrun(self, nodeids: Iterable[str], status: Status, reason: str) -> None:
        """Report those tests that have no outcome, in a run with model classes: other suites are xdist's alone."""
        if self._collected is None or not self._collected.tests:
            return
        for nodeid in [nodeid for nodeid in nodeids if nodeid not in self._decided]:
            path, _, name = nodeid.partition("::")
            ended = pytest.TestReport(nodeid, (path, None, name), {}, "failed", reason, "setup")
            if status == Status.SKIPPED:
                ended.outcome = "skipped"
                ended.longrepr = (path, None, reason)  # type: ignore[assignment]  # no line: the terminal knows this case
            self._attach_outcome(ended, status, reason)
            teardown = pytest.TestReport(nodeid, (path, None, name), {}, "passed", None, "teardown")
            teardown.user_properties += ended.user_properties
            for report in (ended, teardown):
                self._config.hook.pytest_runtest_logreport(report=report)

    def _attach_outcome(self, report: pytest.TestReport, status: Status, reason: str) -> None:
        """Put an outcome into a report that no worker made, if its test is one of a model class."""
        test = self._collected.cell_and_check(report.nodeid) if self._collected is not None else None
        if self._collected is not None and test is not None:
            facts, check = test
            outcome = CheckOutcome(check, status, Stage.RUN, reason)
            event = CheckFinished(facts, outcome, self._collected.selected(report.nodeid))
            report.user_properties += outcome_properties(event)


def _wants_groups(config: pytest.Config) -> bool:
    """Whether the user left the distribution to us. xdist has put its own choice among the options by now."""
    asked = config.known_args_namespace  # typed, in `addopts` or in PYTEST_ADDOPTS
    return not asked.distload and asked.dist in ("no", "loadgroup")


def _share_cores(workers: int) -> None:
    """Keep the workers' thread pools from adding up to more threads than cores."""
    if os.environ.get("OMP_NUM_THREADS"):
        return
    from pytest_hfaccel.hardware.cpu import read_cpu

    threads = max(1, read_cpu().cores // max(1, workers))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    if "torch" in sys.modules:  # by a module or a conftest that was collected
        sys.modules["torch"].set_num_threads(threads)


def _how_it_ended(node: Any) -> str:
    """Say by which signal, or with which code, a worker's process ended; empty where that cannot be known."""
    from pytest_hfaccel.campaign.processes import how_it_ended

    code = exit_code(node.gateway)
    return "" if code is None else how_it_ended(code)
