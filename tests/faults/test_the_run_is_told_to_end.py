"""Ctrl-C and SIGTERM end a run in order: reports are written, no worker stays, and nothing passes that has not run."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from pytest_hfaccel.reporting.runs import list_runs
from tests.harness import HfRun, Project

_SLEEPS = """
import os, time
from pathlib import Path


def pytest_hfaccel_checks(checks):
    @checks.check("sleeps", applies=lambda cell: cell.device.target != "0")
    def sleeps(context):
        Path(f"sleeping-{os.getpid()}").touch()
        time.sleep(120)
"""
_FINISHED = "bert-base-uncased-fake0-fp32"


def interrupt(
    project: Project, number: int, *arguments: str, sleeping: int = 1, group: bool = False
) -> tuple[HfRun, list[int]]:
    """Start a run, send it a signal once so many of its processes sleep in a check, and return what is left of it.

    Returns:
        The run, and the ids of the processes that slept.
    """
    project.write("conftest.py", _SLEEPS)
    asked = ("--hf-device", "fake:0,fake:1,fake:2", "-k", "placement or sleeps", *arguments)
    process = project.start(*asked, new_process=group)  # forks of a fork are not in its group
    deadline = time.monotonic() + 60
    while len(list(project.directory.glob("sleeping-*"))) < sleeping and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    (os.killpg if group else os.kill)(process.pid, number)
    output = process.communicate(timeout=60)[0]
    sleepers = [int(path.name.partition("-")[2]) for path in project.directory.glob("sleeping-*")]
    return HfRun(process.returncode, output, project.directory / "reports"), sleepers


def assert_ended_in_order(run: HfRun, sleepers: list[int]) -> None:
    assert run.code == 2, run.output
    assert (run.summary["ended"], run.summary["passed"]) == ("interrupted", False)
    assert [one.status for one in list_runs(run.reports)] == ["interrupted"]
    assert not run.summary["failures"]
    assert "crashed" not in json.dumps(run.summary["counts"])
    deadline = time.monotonic() + 20
    while any(map(is_alive, sleepers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(filter(is_alive, sleepers))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_without_workers(project: Project, number: signal.Signals) -> None:
    """Everything that had run has passed; the run has not."""
    run, sleepers = interrupt(project, number)
    assert_ended_in_order(run, sleepers)
    following = project.run("--hf-device", "fake:0", "-k", "placement or sleeps", "--hf-resume")
    assert following.code == 0, following.output
    assert "ended early" not in following.output  # it ended in order


@pytest.mark.parametrize("group", [False, True], ids=["the controller", "all processes"])
def test_with_workers(project: Project, group: bool) -> None:
    arguments = ("-n", "2", "--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased")
    run, sleepers = interrupt(project, signal.SIGTERM, *arguments, sleeping=2, group=group)
    assert len(sleepers) == 2
    assert_ended_in_order(run, sleepers)


def test_a_controller_that_is_killed(project: Project) -> None:
    """Nobody can say that it died of the tests its workers were running: they are told, and run again."""
    models = ("--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased")
    run, sleepers = interrupt(project, signal.SIGKILL, "-n", "2", *models, sleeping=2)
    assert run.code == -signal.SIGKILL
    following = project.run("--hf-device", "fake:0,fake:1", "-k", "placement", *models, "--hf-resume")
    (line,) = [line for line in following.output.splitlines() if "ended early while running" in line]
    assert line.count("test_sleeps[") + line.count(" sleeps") == len(sleepers) == 2
    assert following.code == 0, following.output
    assert {str(record.status) for record in following.records.values()} == {"passed"}


def test_a_handler_of_the_user_s_own_stays(project: Project) -> None:
    project.write("plugin_of_mine.py", "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(7))")
    run, _ = interrupt(project, signal.SIGTERM, "-p", "plugin_of_mine")
    assert run.code == 7
