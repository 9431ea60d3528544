"""A clock that is set back, between runs or during one."""

from __future__ import annotations

from datetime import datetime

from pytest_hfaccel.reporting.runs import list_runs
from tests.harness import Project

_SET_BACK = """
import time

_clock = time.time


def pytest_hfaccel_checks(checks):
    @checks.check("sets")
    def sets(context):
        from pytest_hfaccel.core.results import CheckOutcome

        time.time = lambda: _clock() - 86_400
        return CheckOutcome("sets")
"""


def test_it_is_set_back(project: Project) -> None:
    arguments = ("--hf-device", "fake:0", "-k", "placement")
    assert project.run(*arguments).code == 0
    (first,) = list_runs(project.directory / "reports")
    # As if the clock had been a hundred years ahead then.
    first.directory.rename(first.directory.with_name(first.id.replace("-20", "-21", 1)))

    project.write("conftest.py", _SET_BACK)
    second = project.run("--hf-device", "fake:0,fake:1", "-k", "placement or sets")
    assert second.code == 0, second.output
    run = second.summary["run"]
    assert run["started"] <= run["finished"]
    seconds = datetime.fromisoformat(run["finished"]) - datetime.fromisoformat(run["started"])
    assert seconds.total_seconds() < 600

    assert [run.id[:7] for run in list_runs(second.reports)] == ["0001-21", "0002-20"]
    resumed = project.run(*arguments, "--hf-resume", HFACCEL_FAKE='{"*": {"fail_stage": "load"}}')
    assert resumed.code == 0, resumed.output
    assert {record.from_run[:5] for record in resumed.records.values()} == {"0002-"}
