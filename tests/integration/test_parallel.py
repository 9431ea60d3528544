"""pytest-xdist: the controller alone writes, a model stays in one worker, a dead worker costs one cell's check."""

from __future__ import annotations

import pytest

from tests.harness import Project

pytestmark = pytest.mark.slow


def test_two_workers(project: Project) -> None:
    run = project.run(
        "-n", "2", "--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased", "--hf-device", "cpu"
    )
    assert run.code == 0, run.output
    assert {"bert-base-uncased-cpu-fp32", "distilbert-base-uncased-cpu-fp32"} <= set(run.results)
    assert all(not result.incomplete for result in run.results.values())
    # Checks of a class, too, which load the model on no device of the run.
    assert {result.status for result in run.results.values()} == {"passed"}
    # Each model, and its fp16 twin for the canary, once, in one worker.
    assert list(run.summary["pool"]["loads_by_key"].values()) == [1, 1, 1, 1]


def test_a_crash_costs_one_cell(project: Project) -> None:
    project.write(
        "conftest.py",
        """
import os, signal


def pytest_hfaccel_checks(checks):
    @checks.check("crash", applies=lambda cell: cell.model.name == "bert-base-uncased")
    def crash(context):
        os.kill(os.getpid(), signal.SIGSEGV)
""",
    )
    run = project.run(
        "-n", "2", "--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased", "--hf-device", "cpu"
    )
    assert run.code == 1, run.output
    crashed = run.results["bert-base-uncased-cpu-fp32"]
    assert crashed.status == "crashed"
    assert crashed.architecture == "BertForMaskedLM"
    assert "SIGSEGV" in str(crashed.reason)
    assert run.output.count("replacing crashed worker") == 1  # the test it died of is not given to another worker
    assert run.results["distilbert-base-uncased-cpu-fp32"].status == "passed"
