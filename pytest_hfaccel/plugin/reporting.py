"""From a test's report to the reports of the run."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import is_out_of_memory
from pytest_hfaccel.core.results import CheckOutcome, Ended, Stage, Status
from pytest_hfaccel.plugin.collection import cell_of, item_check
from pytest_hfaccel.plugin.collector import PROPERTY, ResultCollector
from pytest_hfaccel.plugin.keys import CELL_RUN, COLLECTED, COLLECTOR, FACTS, OUTCOME, SELECTED, SESSION

if TYPE_CHECKING:
    from pytest_hfaccel.core.results import CellResult
    from pytest_hfaccel.reporting.runs import RunFolder

POOL_STATS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
_WRITTEN: pytest.StashKey[Written] = pytest.StashKey()
_STARTED: pytest.StashKey[tuple[float, float]] = pytest.StashKey()
"""When the run began: wall clock, and a clock that nobody sets."""
_ENDS_ON_SIGTERM: pytest.StashKey[bool] = pytest.StashKey()
_IN_JOURNAL = ("module", "cell", "decided_by")
"""What of a cell is written before one of its tests starts."""


@dataclass
class Written:
    """What became of a run's results.

    Attributes:
        summary: `summary.json` in the run's folder; `None` when the reports could not be written.
        database: The line that says what was written to the database.
        problems: What could not be written, and where the results are then.
        lost: The results that are in no file, as lines of a journal.
    """

    summary: Path | None = None
    database: str = ""
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def make_collector(config: pytest.Config) -> ResultCollector:
    """Make the collector of the process that writes, and have pytest hand it every report."""

    def begin_folder() -> RunFolder:
        from pytest_hfaccel.reporting.runs import RunFolder

        ours = config.stash[SESSION]
        earlier = ours.plan.earlier if ours.config.resume else None
        return RunFolder(
            ours.config.reports_dir,
            run_header(config),
            mode=int(ours.config.reports_mode, 8),
            root=_root(config),
            kept=list(earlier.finished.values()) if earlier else (),
            resumed=earlier.id if earlier else "",
        )

    def finished(result: Any) -> None:
        config.hook.pytest_hfaccel_cell_finished(result=result)

    config.stash[_STARTED] = time.time(), time.monotonic()
    config.stash[POOL_STATS] = []
    collector = ResultCollector(begin_folder, finished)
    config.pluginmanager.register(_LogReport(config, collector), "hfaccel-collector")
    return collector


class _LogReport:
    """The hooks that feed the collector; registered only where there is one."""

    def __init__(self, config: pytest.Config, collector: ResultCollector) -> None:
        self._config = config
        self._collector = collector

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        collected = self._config.stash.get(COLLECTED, None)
        test = collected.cell_and_check(nodeid) if collected is not None else None
        facts = {**{name: test[0][name] for name in _IN_JOURNAL}, "check": test[1]} if test else {}
        self._collector.start(nodeid, facts)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collector.add(report)
        if report.when not in ("setup", "call"):  # also a worker's death, after which pytest says nothing more
            self._collector.stop(report.nodeid)


def _root(config: pytest.Config) -> str:
    """The directory that paths in reports are relative to.

    pytest's own root is above all arguments, those of options included, where no configuration file says it.
    """
    return str(config.rootpath if config.inipath else config.invocation_params.dir)


def begin(config: pytest.Config) -> None:
    """Begin a run that has tests of model classes: make its folder, and let SIGTERM end it as Ctrl-C does.

    Raises:
        pytest.UsageError: Its folder cannot be written. Better now than after hours.
    """
    from pytest_hfaccel.core.errors import HfAccelError

    collected = config.stash.get(COLLECTED, None)
    if collected is None or not collected.tests:
        return
    _end_on_sigterm(config)
    if COLLECTOR in config.stash:
        try:
            config.stash[COLLECTOR].begin()
        except HfAccelError as error:
            raise pytest.UsageError(str(error)) from None


def _end_on_sigterm(config: pytest.Config) -> None:
    """Take SIGTERM for Ctrl-C: the first one ends the run, whose reports are then written; later ones are ignored.

    A handler of the user's own stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    config.add_cleanup(_restore_sigterm)
    config.stash[_ENDS_ON_SIGTERM] = True


def _restore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def attach(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put the outcome of a model class's test into its report, as JSON text.

    A test that ran a check carries the check's outcome; a test the user wrote carries what pytest says of it. A
    teardown that fails (the model could not be freed) is an outcome of its own.
    """
    cell = cell_of(item)
    decided = call.when == "call" or not report.passed
    is_known = any(name == PROPERTY for name, _ in item.user_properties)
    if cell is None or not decided or (is_known and not (call.when == "teardown" and report.failed)):
        return
    outcome = None if is_known else item.stash.get(OUTCOME, None)
    outcome = outcome or _from_report(item_check(item), report)
    if report.failed and call.excinfo is not None and is_out_of_memory(call.excinfo.value):
        outcome.status = Status.OUT_OF_MEMORY
    run = item.stash.get(CELL_RUN, None)
    from pytest_hfaccel.engine.runner import identity

    session = item.config.stash[SESSION]
    module = session.module_of(item.cls)  # type: ignore[attr-defined]
    facts = run.facts() if run is not None else identity(cell, module)
    facts = item.stash.get(FACTS, {**facts, "decided_by": session.decided_by(cell, item.cls)})  # type: ignore[attr-defined]
    for entry in outcome_properties(facts, outcome, item.stash.get(SELECTED, 0)):
        item.user_properties.append(entry)
        report.user_properties.append(entry)


def outcome_properties(facts: dict[str, Any], outcome: CheckOutcome, selected: int) -> list[tuple[str, object]]:
    """Return what a report says to the collector, and to readers of JUnit XML.

    Args:
        facts: What is known about the cell, by field of `CellResult`.
        outcome: The test's outcome.
        selected: How many selected tests the cell has.
    """
    value = {"facts": facts, "outcome": outcome.to_json(), "selected": selected}
    # `weights` once more: the name of a model says nothing of what stood in for it.
    return [(PROPERTY, json.dumps(value)), ("weights", facts["weights"])]


def _from_report(name: str, report: pytest.TestReport) -> CheckOutcome:
    text = report.longreprtext
    if hasattr(report, "wasxfail"):
        status = Status.XFAILED if report.skipped else Status.XPASSED
        return CheckOutcome(name, status, Stage.RUN, report.wasxfail, seconds=report.duration)
    if report.passed:
        return CheckOutcome(name, Status.PASSED, seconds=report.duration)
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else text
        return CheckOutcome(name, Status.SKIPPED, Stage.RUN, reason, seconds=report.duration)
    timeout = "Failed: Timeout (>" in text  # what pytest-timeout raises
    status = Status.TIMEOUT if timeout else Status.FAILED if report.when == "call" else Status.ERROR
    return CheckOutcome(name, status, Stage.RUN, text, seconds=report.duration)


def run_header(config: pytest.Config) -> dict[str, Any]:
    """What every report says about the run: machine, versions, options, start."""
    from dataclasses import asdict

    from pytest_hfaccel.hardware import machine_facts

    ours = config.stash[SESSION]
    return {
        "started": datetime.fromtimestamp(config.stash[_STARTED][0], UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "options": asdict(ours.config),
        "command": " ".join(["pytest", *map(str, config.invocation_params.args)]),
        "devices": [device.id for device in ours.plan.devices],
        "absent_devices": ours.plan.absent,
        "rootdir": config.rootpath.name,
        "python": sys.version.split()[0],
        "process": os.getpid(),
        "workers": len(config.getoption("tx", None) or ()) if config.getoption("dist", "no") != "no" else 0,
    }


def finish(session: pytest.Session) -> None:
    """End the run of this process: free the pool; in the process that writes, write the reports."""
    config = session.config
    if config.stash.get(_ENDS_ON_SIGTERM, False):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the run ends already
    stats = config.stash[SESSION].close()
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[PROPERTY] = json.dumps(stats)
        return
    if stats is not None:
        config.stash[POOL_STATS].append(stats)
    results = config.stash[COLLECTOR].close()
    if results or config.stash[COLLECTOR].folder:
        config.stash[_WRITTEN] = _write(session, results)


def _write(session: pytest.Session, results: list[CellResult]) -> Written:
    """Write reports and database. What was asked for and cannot be written makes pytest's exit code 3."""
    from pytest_hfaccel.core.errors import HfAccelError
    from pytest_hfaccel.reporting.runs import journal_lines, keys_in_journal

    config = session.config
    collector, options = config.stash[COLLECTOR], config.stash[SESSION].config
    facts, ended, written = _finished_facts(config), _how_it_ended(session), Written()
    try:
        written.summary = collector.begin().finish(results, facts, ended, options.keep_runs)[-1]
        if collector.unwritten:
            written.problems.append(collector.problem)
    except HfAccelError as error:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        written.problems.append(str(error))
        journal = collector.folder.journal.path if collector.folder else None
        in_journal = keys_in_journal(journal) if journal else set()
        in_no_file = [result for result in results if result.key not in in_journal]
        if in_journal:
            written.problems.append(f"the results of {len(in_journal)} of {len(results)} cells are in {journal}")
        if in_no_file:
            written.lost = list(journal_lines(in_no_file, {**run_header(config), **facts}, ended, root=_root(config)))
    try:
        # After the reports: whatever is wrong with the database, they hold everything the run found.
        if results:
            written.database = _record(config, results, {**run_header(config), **facts})
    except HfAccelError as error:
        written.problems.append(str(error))
        if options.database:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    return written


def _how_it_ended(session: pytest.Session) -> Ended:
    in_order = session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    )
    return Ended.FINISHED if in_order and not (session.shouldstop or session.shouldfail) else Ended.INTERRUPTED


def _finished_facts(config: pytest.Config) -> dict[str, Any]:
    from pytest_hfaccel.reporting.run_facts import git_commit

    began, mark = config.stash[_STARTED]
    # Not what the clock says now: somebody may have set it while the run went on.
    finished = datetime.fromtimestamp(began + time.monotonic() - mark, UTC)
    return {
        "finished": finished.isoformat(timespec="seconds"),
        "pool": config.stash[POOL_STATS],
        "commit": git_commit(config.rootpath),
    }


def _record(config: pytest.Config, results: list[CellResult], header: dict[str, Any]) -> str:
    """Write the run to the benchmark database, once and in one transaction; return the line that says so."""
    path = config.stash[SESSION].config.database_path
    if path is None:
        return ""
    from pytest_hfaccel.history.recording import make_record, record_run

    record = make_record(header, test_name="pytest", cells=results, directory=config.rootpath)
    run_id = record_run(path, record)
    return f"database: {path} (run {run_id}: {len(record.measurements)} measurements, {len(record.cells)} cells)"


def print_summary(terminal: Any, config: pytest.Config) -> None:
    """Print the table model x device, then where the reports are, and the results that are in no file."""
    collector, written = config.stash.get(COLLECTOR, None), config.stash.get(_WRITTEN, None)
    if collector is None or written is None:
        return
    from pytest_hfaccel.reporting import model_device_table, precision_line

    if collector.results:
        terminal.section("models x devices")
        for line in model_device_table(collector.results, width=config.get_terminal_writer().fullwidth).splitlines():
            terminal.write_line(line)
        if line := precision_line(collector.results):
            terminal.write_line(line)
    for problem in written.problems:
        terminal.write_line(f"not written: {problem}", red=True)
    if written.summary is not None:
        run = written.summary.parent
        terminal.write_line(
            f"reports: {run.parent.parent} (summary.json, by_class/, by_hardware/, journal.jsonl of run {run.name})"
        )
    if written.database:
        terminal.write_line(written.database)
    if written.lost:
        terminal.section("results that are in no file: a journal", red=True)
        for line in written.lost:
            terminal.write_line(line.rstrip("\n"))
