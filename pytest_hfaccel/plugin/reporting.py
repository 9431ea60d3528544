"""From a test's report to the reports of the run."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.plugin.collector import PROPERTY, ResultCollector
from pytest_hfaccel.plugin.keys import CELL_RUN, COLLECTOR, FACTS, OUTCOME, SELECTED, SESSION
from pytest_hfaccel.plugin.parametrize import cell_of, item_check
from pytest_hfaccel.results import CheckOutcome, Stage, Status

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hfaccel.reports import Journal

POOL_STATS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
WRITTEN: pytest.StashKey[list[Path]] = pytest.StashKey()
RECORDED: pytest.StashKey[str] = pytest.StashKey()
_STARTED: pytest.StashKey[float] = pytest.StashKey()


def make_collector(config: pytest.Config) -> ResultCollector:
    """Make the collector of the process that writes, and have pytest hand it every report."""

    def open_journal() -> Journal:
        from pytest_hfaccel.reports import JOURNAL, Journal

        return Journal(config.stash[SESSION].config.reports_dir / JOURNAL, run_header(config))

    def finished(result: Any) -> None:
        config.hook.pytest_hfaccel_cell_finished(result=result)

    config.stash[_STARTED] = time.time()
    config.stash[POOL_STATS] = []
    collector = ResultCollector(open_journal, finished)
    config.pluginmanager.register(_LogReport(collector), "hfaccel-collector")
    return collector


class _LogReport:
    """The hook that feeds the collector; registered only where there is one."""

    def __init__(self, collector: ResultCollector) -> None:
        self._collector = collector

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._collector.add(report)


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
    run = item.stash.get(CELL_RUN, None)
    from pytest_hfaccel.runner import identity

    module = item.config.stash[SESSION].module_of(item.cls)  # type: ignore[attr-defined]
    facts = run.facts() if run is not None else identity(cell, module)
    facts = item.stash.get(FACTS, facts)
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
        "started": datetime.fromtimestamp(config.stash[_STARTED], UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "options": asdict(ours.config),
        "command": " ".join(["pytest", *map(str, config.invocation_params.args)]),
        "devices": [device.id for device in ours.plan.devices],
        "absent_devices": ours.plan.absent,
        "rootdir": config.rootpath.name,
        "python": sys.version.split()[0],
        "process": os.getpid(),
    }


def finish(config: pytest.Config) -> None:
    """End the run of this process: free the pool; in the process that writes, write the reports."""
    from pytest_hfaccel.errors import HfAccelError

    stats = config.stash[SESSION].close()
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[PROPERTY] = json.dumps(stats)
        return
    if stats is not None:
        config.stash[POOL_STATS].append(stats)
    collector = config.stash[COLLECTOR]
    try:
        results = collector.close()
        if results:
            header = _finished_header(config)
            config.stash[WRITTEN] = _write(config, results, header)
            # After the reports: whatever is wrong with the database, they hold everything the run found.
            config.stash[RECORDED] = _record(config, results, header)
    except HfAccelError as error:
        collector.problems.setdefault(str(error))


def _finished_header(config: pytest.Config) -> dict[str, Any]:
    from pytest_hfaccel.reports.commit import git_commit

    return {
        **run_header(config),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "pool": config.stash[POOL_STATS],
        "commit": git_commit(config.rootpath),
    }


def _write(config: pytest.Config, results: list[Any], header: dict[str, Any]) -> list[Path]:
    from pytest_hfaccel.reports import write_reports

    return write_reports(config.stash[SESSION].config.reports_dir, results, header)


def _record(config: pytest.Config, results: list[Any], header: dict[str, Any]) -> str:
    """Write the run to the benchmark database, once and in one transaction; return the line that says so."""
    path = config.stash[SESSION].config.database_path
    if path is None:
        return ""
    from pytest_hfaccel.benchmark.recording import make_record, record_run

    record = make_record(header, test_name="pytest", cells=results, directory=config.rootpath)
    run_id = record_run(path, record)
    return f"database: {path} (run {run_id}: {len(record.measurements)} measurements, {len(record.cells)} cells)"


def print_summary(terminal: Any, config: pytest.Config) -> None:
    """Print the table model x device, then where the reports are."""
    collector = config.stash.get(COLLECTOR, None)
    if collector is None or not collector.results:
        return
    from pytest_hfaccel.reports import model_device_table

    terminal.section("models x devices")
    for line in model_device_table(collector.results, width=terminal._tw.fullwidth).splitlines():
        terminal.write_line(line)
    for problem in collector.problems:
        terminal.write_line(f"not written: {problem}", red=True)
    for path in config.stash.get(WRITTEN, [])[-1:]:
        terminal.write_line(f"reports: {path.parent} ({path.name}, by_class/, by_hardware/, journal.jsonl)")
    if line := config.stash.get(RECORDED, ""):
        terminal.write_line(line)
