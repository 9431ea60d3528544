"""From the reports of single tests to the events of the run, and on to its consumers.

A worker attaches what it knows to each test's report, as JSON text under the user property `hfaccel`; that survives
pytest-xdist and also lands in `--junitxml`. The process that writes makes events of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import HfAccelError, is_device_lost, is_fault_of_machine, is_out_of_memory
from pytest_hfaccel.core.events import CellFinished, CheckFinished, Event, EventStream, RunFinished
from pytest_hfaccel.core.results import (
    CheckOutcome,
    Ended,
    Stage,
    Status,
    error_in_budgets,
    smallest_noticed_fault,
)
from pytest_hfaccel.engine.cell_run import identity
from pytest_hfaccel.plugin.state import (
    CELL_RUN,
    CELL_TEST,
    COLLECTED,
    FACTS,
    OPTIONS,
    OUTCOME,
    REPORTERS,
    SESSION,
    SHARD,
    STARTED,
    session_of,
)
from pytest_hfaccel.reporting.run_facts import git_commit
from pytest_hfaccel.reporting.run_reports import RunReports
from pytest_hfaccel.reporting.runs import RunFolder

if TYPE_CHECKING:
    from pytest_hfaccel.comparison import Comparison
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.cell_run import CellRun
    from pytest_hfaccel.plugin.collection import CollectedTests

PROPERTY = "hfaccel"

_ENDS_ON_SIGTERM: pytest.StashKey[bool] = pytest.StashKey()


class Reporters:
    """The stream of events of the process that writes, and the hooks that feed it.

    Args:
        config: pytest's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        options = config.stash[OPTIONS]
        self.baseline = _Baseline(options, root_of(config)) if options.baseline else None
        self.reports = RunReports(
            self._make_folder,
            keep_runs=options.keep_runs,
            root=root_of(config),
            compare=self.baseline,
        )
        self.database = _Database(config)
        added: list[Any] = []
        config.hook.pytest_hfaccel_reporters(reporters=added)
        self.stream = EventStream(
            lambda: run_header(config), [self.reports, self._call_cell_hook, *added, self.database, self._call_run_hook]
        )
        self.pool_stats: list[dict[str, Any]] = []

    def _make_folder(self, header: Mapping[str, Any]) -> RunFolder:
        session = session_of(self._config)
        earlier = session.plan.earlier if session.config.resume else None
        return RunFolder(
            session.config.reports_dir,
            header,
            mode=int(session.config.reports_mode, 8),
            root=root_of(self._config),
            kept=list(earlier.finished.values()) if earlier else (),
            resumed=earlier.id if earlier else "",
        )

    def _call_cell_hook(self, event: Event) -> None:
        if isinstance(event, CellFinished):
            self._config.hook.pytest_hfaccel_cell_finished(result=event.result)

    def _call_run_hook(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            summary = self.reports.written.summary if self.reports.written else None
            directory = summary.parent if summary else None
            self._config.hook.pytest_hfaccel_run_finished(run=event, directory=directory)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Emit that a test is about to run."""
        collected: CollectedTests | None = self._config.stash.get(COLLECTED, None)
        facts, check = (collected and collected.cell_and_check(nodeid)) or ({}, "")
        self.stream.start_check(nodeid, check, facts)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Emit the outcome that a report carries, if any.

        A test has ended with its teardown, or with the report of the worker that it crashed (which has no phase).
        """
        self.stream.add_duration(report.nodeid, getattr(report, "duration", 0.0))
        is_over = report.when not in ("setup", "call")
        known = dict(report.user_properties).get(PROPERTY)
        if known is not None:
            event = CheckFinished.from_json(json.loads(str(known)), report.nodeid)
            self.stream.finish_check(event, is_over=is_over)
        if is_over:
            self.stream.stop_test(report.nodeid)


class _Database:
    """Writes the run to the benchmark database, once and in one transaction.

    It comes after the reports: whatever is wrong with the database, they hold everything the run found.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.line = self.problem = ""

    def __call__(self, event: Event) -> None:
        path = self._config.stash[OPTIONS].database_path
        if not isinstance(event, RunFinished) or not event.results or path is None:
            return
        from pytest_hfaccel.history import BenchmarkDatabase
        from pytest_hfaccel.history.recording import make_record

        try:
            record = make_record(event.header, test_name="pytest", cells=event.results, directory=self._config.rootpath)
            run_id = BenchmarkDatabase(path).write_run(record)
        except HfAccelError as error:
            self.problem = str(error)
            return
        measured = f"{len(record.measurements)} measurements, {len(record.cells)} cells"
        self.line = f"database: {path} (run {run_id}: {measured})"


class _Baseline:
    """Compares the run with the one of `--hf-baseline`, once its results are known.

    Args:
        options: What the user asked for.
        root: A directory: paths below it are written relative to it.

    Raises:
        ConfigError: There is no such run. Better now than after hours; and `latest` is not the run that begins.
    """

    def __init__(self, options: RunConfig, root: str) -> None:
        from pytest_hfaccel.comparison import find_side

        self._options, self._root = options, root
        self._source = find_side(options.baseline, options.reports_dir, options.source_of("baseline"))
        self.comparison: Comparison | None = None
        """What changed; `None` until the run has ended, and where the baseline could not be read."""

    def __call__(self, event: RunFinished, run: str) -> dict[str, Any]:
        """Compare the run that has ended, with this id; return the contents of `comparison.json`."""
        from pytest_hfaccel.comparison import compare_runs, read_side, run_of
        from pytest_hfaccel.reporting.run_facts import envelope

        place = self._options.source_of("baseline")
        began = str(event.header.get("started", ""))
        baseline = read_side(str(self._source), self._options.reports_dir, option=place, before=began)
        baseline.source = self._options.baseline
        ended = run_of(envelope("journal", event.header, self._root), event.results, source=run, run_id=run)
        ended.is_complete = event.ended == Ended.FINISHED
        self.comparison = compare_runs(baseline, ended)
        return self.comparison.to_json(self._options.baseline_fail_on)

    @property
    def is_failed(self) -> bool:
        """Whether something is worse that `--hf-baseline-fail-on` names."""
        return self.comparison is not None and bool(self.comparison.worse(self._options.baseline_fail_on))

    def lines(self) -> list[str]:
        """Return what the terminal says."""
        from pytest_hfaccel.comparison import text_of

        return text_of(self.comparison, self._options.baseline_fail_on).splitlines() if self.comparison else []


def reporters_of(config: pytest.Config) -> Reporters:
    """Return the reporters of the process that writes, made on the first call."""
    if REPORTERS not in config.stash:
        config.stash[REPORTERS] = Reporters(config)
        config.pluginmanager.register(config.stash[REPORTERS], "hfaccel-reporters")
    return config.stash[REPORTERS]


def begin_run(config: pytest.Config) -> None:
    """Begin a run that has tests of model classes: make its folder, and let SIGTERM end it as Ctrl-C does.

    Raises:
        pytest.UsageError: Its folder cannot be written, or there is no such baseline. Better now than after hours.
    """
    collected = config.stash.get(COLLECTED, None)
    if collected is None or not collected.tests:
        return
    _end_on_sigterm(config)
    if not hasattr(config, "workerinput"):
        from pytest_hfaccel.plugin.progress import show_progress

        try:
            reporters = reporters_of(config)
            show_progress(config, collected, reporters.stream)
            reporters.stream.start()
        except HfAccelError as error:
            raise pytest.UsageError(str(error)) from None


def root_of(config: pytest.Config) -> str:
    """The directory that paths in reports are relative to.

    pytest's own root is above all arguments, those of options included, where no configuration file says it.
    """
    return str(config.rootpath if config.inipath else config.invocation_params.dir)


def _end_on_sigterm(config: pytest.Config) -> None:
    """Take SIGTERM for Ctrl-C: the first one ends the run, whose reports are then written; later ones are ignored.

    A handler of the user's own stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    def restore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, interrupt)
    config.add_cleanup(restore)
    config.stash[_ENDS_ON_SIGTERM] = True


def attach_outcome(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put the outcome of a model class's test into its report, as JSON text.

    A test that ran a check carries the check's outcome; a test the user wrote carries what pytest says of it. A
    teardown that fails (the model could not be freed) is a separate outcome.
    """
    decided = call.when == "call" or not report.passed
    is_known = any(name == PROPERTY for name, _ in item.user_properties)
    if not decided or (is_known and not (call.when == "teardown" and report.failed)):
        return
    test, model_class = item.stash[CELL_TEST], item.cls  # type: ignore[attr-defined]
    outcome = None if is_known else item.stash.get(OUTCOME, None)
    outcome = outcome or _from_report(test.check, report)
    if report.failed and call.excinfo is not None and is_out_of_memory(call.excinfo.value):
        outcome.status = Status.OUT_OF_MEMORY
    if report.failed and call.excinfo is not None and is_device_lost(call.excinfo.value):
        _lose_device(item, outcome, call.excinfo.value)
    session, run, facts = session_of(item.config), item.stash.get(CELL_RUN, None), item.stash.get(FACTS, None)
    if facts is None:
        facts = run.facts() if run is not None else identity(test.cell, session.module_of(model_class))
        facts = {**facts, "decided_by": session.decided_by(test.cell, model_class)}
    selected = item.config.stash[COLLECTED].selected(item.nodeid)
    for entry in outcome_properties(CheckFinished(facts, outcome, selected)):
        item.user_properties.append(entry)
        report.user_properties.append(entry)


def _lose_device(item: pytest.Item, outcome: CheckOutcome, error: BaseException) -> None:
    """A test of the user's own left the device unusable: the cell's other tests are not run."""
    run: CellRun | None = item.funcargs.get("hf_cell_run")  # type: ignore[attr-defined]
    if run is not None:
        run.lose_device(outcome.name, error)
    if is_fault_of_machine(error):
        outcome.status = Status.INFRA_ERROR


def outcome_properties(event: CheckFinished) -> list[tuple[str, object]]:
    """Return what a report says to the process that writes, and to readers of JUnit XML.

    For the latter some facts stand alone, too: the kind of weights (the name of a model says nothing of what stood in
    for it), the error in multiples of what rounding must cost, and how small a fault the cell notices.
    """
    measures = event.outcome.measures
    alone = {
        "weights": event.facts["weights"],
        "error_in_budgets": error_in_budgets(measures),
        "smallest_noticed_fault": smallest_noticed_fault(measures),
    }
    told = [(name, fact) for name, fact in alone.items() if fact is not None]
    return [(PROPERTY, json.dumps(event.to_json())), *told]


def _from_report(name: str, report: pytest.TestReport) -> CheckOutcome:
    reason = report.longreprtext
    if hasattr(report, "wasxfail"):
        status, reason = Status.XFAILED if report.skipped else Status.XPASSED, report.wasxfail
    elif report.passed:
        return CheckOutcome(name, Status.PASSED, seconds=report.duration)
    elif report.skipped:
        status, reason = Status.SKIPPED, report.longrepr[2] if isinstance(report.longrepr, tuple) else reason
    elif "Failed: Timeout (>" in reason:  # what pytest-timeout raises
        status = Status.TIMEOUT
    else:
        status = Status.FAILED if report.when == "call" else Status.ERROR
    return CheckOutcome(name, status, Stage.RUN, reason, seconds=report.duration)


def run_header(config: pytest.Config) -> dict[str, Any]:
    """What every report says about the run: machine, versions, options, start."""
    from pytest_hfaccel.hardware import machine_facts

    session, shard = session_of(config), config.stash.get(SHARD, None)
    return {
        **({"plan": shard.facts} if shard is not None else {}),
        "started": datetime.fromtimestamp(config.stash[STARTED][0], UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "options": session.config.to_json(),
        "command": " ".join(["pytest", *map(str, config.invocation_params.args)]),
        "devices": [device.id for device in session.plan.devices],
        "absent_devices": session.plan.absent,
        "rootdir": config.rootpath.name,
        "python": sys.version.split()[0],
        "process": os.getpid(),
        "workers": _workers(config),
    }


def _workers(config: pytest.Config) -> int:
    """How many processes run tests for this one: their deaths do not end the run."""
    if config.getoption("dist", "no") != "no":
        return len(config.getoption("tx", None) or ())
    options = config.stash[OPTIONS]
    return int(bool(options.isolate or options.timeout))


def finish_run(session: pytest.Session) -> None:
    """End the run of this process: free the pool; in the process that writes, write the reports."""
    config = session.config
    if config.stash.get(_ENDS_ON_SIGTERM, False):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run ends already
    stats = config.stash[SESSION].close() if SESSION in config.stash else None
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[PROPERTY] = json.dumps(stats)
        return
    if REPORTERS not in config.stash:
        return
    reporters = config.stash[REPORTERS]
    if stats is not None:
        reporters.pool_stats.append(stats)
    code = pytest.ExitCode
    in_order = session.exitstatus in (code.OK, code.TESTS_FAILED, code.NO_TESTS_COLLECTED)
    ended = Ended.FINISHED if in_order and not (session.shouldstop or session.shouldfail) else Ended.INTERRUPTED
    began, mark = config.stash[STARTED]
    # Not what the clock says now: somebody may have set it while the run went on.
    finished = datetime.fromtimestamp(began + time.monotonic() - mark, UTC).isoformat(timespec="seconds")
    commit = git_commit(config.rootpath)
    if ended == Ended.FINISHED and config.stash[OPTIONS].explain_seconds:
        from pytest_hfaccel.plugin.explaining import explain_failures

        explain_failures(config, reporters)
    reporters.stream.finish(ended, {"finished": finished, "pool": reporters.pool_stats, "commit": commit})
    # What was asked for and cannot be written makes pytest's exit code 3.
    written = reporters.reports.written
    database_asked = bool(reporters.database.problem and config.stash[OPTIONS].database)
    if reporters.stream.problems or database_asked or (written is not None and not written.is_complete):
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    elif reporters.baseline is not None and reporters.baseline.is_failed and session.exitstatus == code.OK:
        session.exitstatus = code.TESTS_FAILED


def print_summary(terminal: Any, config: pytest.Config) -> None:
    """Print the table model x device, then where the reports are, and the results that are in no file."""
    reporters = config.stash[REPORTERS]
    written, results = reporters.reports.written, reporters.stream.results
    if written is None:
        return
    from pytest_hfaccel.reporting import last_lines, model_device_table
    from pytest_hfaccel.reporting.costs import cost_text

    if results:
        terminal.section("models x devices")
        for line in model_device_table(results, width=config.get_terminal_writer().fullwidth).splitlines():
            terminal.write_line(line)
        for line in last_lines(results):
            terminal.write_line(line)
        asked = {"options": config.stash[OPTIONS].to_json()}
        if costs := cost_text(results, asked, config.get_terminal_writer().fullwidth):
            terminal.section("costs")
            for line in costs.splitlines():
                terminal.write_line(line)
    if config.stash[OPTIONS].explain_seconds:
        from pytest_hfaccel.plugin.explaining import lines_of

        if lines := list(lines_of(results)):
            terminal.section("causes")
            for line in lines:
                terminal.write_line(line)
    if reporters.baseline is not None and (lines := reporters.baseline.lines()):
        terminal.section("compared with the baseline")
        for line in lines:
            terminal.write_line(line)
    for problem in (*written.problems, *filter(None, [reporters.database.problem]), *reporters.stream.problems):
        terminal.write_line(f"not written: {problem}", red=True)
    if written.summary is not None:
        run = written.summary.parent
        terminal.write_line(
            f"reports: {run.parent.parent} (index.html, summary.json, by_class/, by_hardware/, journal.jsonl of run "
            f"{run.name})"
        )
    if reporters.database.line:
        terminal.write_line(reporters.database.line)
    if written.lost:
        terminal.section("results that are in no file: a journal", red=True)
        for line in written.lost:
            terminal.write_line(line.rstrip("\n"))
