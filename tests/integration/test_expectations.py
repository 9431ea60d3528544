"""Expected failures are data, and strict."""

from __future__ import annotations

import pytest

from tests.harness import Project

pytestmark = pytest.mark.slow

MODEL = """version: 1
models:
  mine/bert:
    architecture: BertForMaskedLM
    task: fill-mask
    expect:
      - device: {device}
        dtype: fp32
        stage: {stage}
        {check}
        reason: "a defect that is known"
"""


def registry(project: Project, *, device: str = "cpu", stage: str = "compare", check: str = "check: parity") -> None:
    project.write("mine.yaml", MODEL.format(device=device, stage=stage, check=check))


ARGUMENTS = ("--hf-registry", "mine.yaml", "--hf-model", "mine/bert", "--hf-device", "cpu")


def test_an_expectation_that_passes_fails_the_run_and_names_the_line(project: Project) -> None:
    registry(project)
    run = project.run(*ARGUMENTS)
    assert run.code == 1
    assert run.statuses("mine--bert-cpu-fp32")["parity"] == "xpassed"
    assert "mine.yaml:7" in run.output
    assert "delete" in run.output
    assert run.counts["failed"] == 1


def test_an_expected_load_failure_that_loads_fails_the_run(project: Project) -> None:
    registry(project, stage="convert", check="weights: tiny")
    run = project.run(*ARGUMENTS)
    assert run.code == 1
    assert list(run.statuses("mine--bert-cpu-fp32").values()).count("xpassed") == 1


def test_an_expectation_that_fails_as_expected_passes_the_run(project: Project) -> None:
    project.write("conftest.py", BROKEN)
    registry(project, check="check: broken")
    run = project.run(*ARGUMENTS)
    assert run.code == 0, run.output
    assert run.statuses("mine--bert-cpu-fp32")["broken"] == "xfailed"
    assert run.counts["xfailed"] == 1


def test_what_takes_the_process_down_is_not_run_unless_asked_for(project: Project) -> None:
    project.write("conftest.py", DEADLY)
    registry(project, stage="run", check="check: broken\n        run: false")
    run = project.run(*ARGUMENTS)
    assert run.code == 0, run.output
    assert run.statuses("mine--bert-cpu-fp32")["broken"] == "xfailed"
    assert project.run(*ARGUMENTS, "--runxfail").code == 7


def test_with_runxfail_an_expected_failure_is_a_failure(project: Project) -> None:
    project.write("conftest.py", BROKEN)
    registry(project, check="check: broken")
    run = project.run(*ARGUMENTS, "--runxfail")
    assert run.code == 1
    assert run.statuses("mine--bert-cpu-fp32")["broken"] == "failed"


def test_with_runxfail_a_resumed_run_runs_the_cells_with_expected_failures_again(project: Project) -> None:
    project.write("conftest.py", BROKEN)
    registry(project, check="check: broken")
    only = (*ARGUMENTS, "-k", "placement or broken")
    assert project.run(*only).code == 0
    run = project.run(*only, "--hf-resume", "--runxfail")
    assert run.code == 1, run.output
    assert run.statuses("mine--bert-cpu-fp32")["broken"] == "failed"


def test_a_failure_at_another_stage_is_a_failure(project: Project) -> None:
    project.write("conftest.py", BROKEN)
    registry(project, stage="run", check="check: broken")
    run = project.run(*ARGUMENTS)
    assert run.code == 1
    assert run.statuses("mine--bert-cpu-fp32")["broken"] == "failed"
    assert "expects a failure at stage run, not compare" in run.output


BROKEN = """
from pytest_hfaccel.checks.base import failed


def pytest_hfaccel_checks(checks):
    @checks.check("broken")
    def broken(context):
        return failed("it is broken")
"""

DEADLY = """
import os


def pytest_hfaccel_checks(checks):
    @checks.check("broken")
    def broken(context):
        os._exit(7)
"""
