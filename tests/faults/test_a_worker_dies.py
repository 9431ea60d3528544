"""Workers of pytest-xdist die: while they start, in a check, in a model's class level, in a teardown, too often.

Every collected test ends with an outcome, on the right cell, and the run ends with the right exit code.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

MODELS = ("bert-base-uncased", "distilbert-base-uncased")
MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
CHECKS = """
import os
import signal
import time

from pytest_hfaccel.checks.base import passed


def pytest_hfaccel_checks(checks):
    for name, level in (("class_one", "class"), ("class_two", "class"), ("one", "cell"), ("two", "cell")):
        def run(context, name=name):
            if os.environ.get("DIES_IN") == f"{context.cell.model.name}/{name}":
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ.get("HANGS_IN") == f"{context.cell.model.name}/{name}":
                time.sleep(100)
            return passed()

        checks.check(name, level=level)(run)
"""


@pytest.fixture
def models(project: Project) -> Project:
    """Two models on a device that exists by name only, each with two checks of its class and three of its cell."""
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_hf_models.py", MODULE)
    project.write("conftest.py", CHECKS)
    return project


def run_models(project: Project, *arguments: str, **env: Any) -> HfRun:
    named = [argument for model in MODELS for argument in ("--hf-model", model)]
    selected = ("-k", "one or two or placement", "--junitxml=junit.xml")
    return project.run("-n", "2", *named, "--hf-device", "fake:0", *selected, *arguments, **env)


def test_while_it_starts(models: Project) -> None:
    models.write(
        "conftest.py",
        CHECKS
        + """

def pytest_xdist_newgateway(gateway):
    if gateway.id == "gw0":
        gateway.remote_exec("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").waitclose()
""",
    )
    run = run_models(models)
    assert run.code == 0, run.output
    assert run.counts["passed"] == 10


def test_in_a_check_of_a_cell(models: Project) -> None:
    run = run_models(models, DIES_IN="bert-base-uncased/one")
    assert run.code == 1, run.output
    assert run.counts["failed"] == 1
    crashed = run.results["bert-base-uncased-fake0-fp32"]
    assert crashed.status == "crashed"
    assert crashed.architecture == "BertForMaskedLM"
    assert "SIGKILL" in str(crashed.reason)
    assert len(crashed.checks) == 3
    later = [check for check in crashed.checks if check.status == "skipped"]
    assert later
    assert all("the worker died of" in str(check.reason) for check in later)
    others = [run.results[cell] for cell in ("bert-base-uncased", *_cells("distilbert-base-uncased"))]
    assert {str(result.status) for result in others} == {"passed"}
    assert run.output.count("replacing crashed worker") == 1  # what it died of is not given to another worker


_AT_STAGES = """
import os
import signal

from pytest_hfaccel.checks.base import passed
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.tolerances import Tolerance


class Deadly(dict):
    def __iter__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def pytest_hfaccel_checks(checks):
    @checks.check("one")
    def one(context):
        context.loaded.forward({})
        if context.cell.model.name == "gpt2-medium":
            compare({}, Deadly(), Tolerance(0.0, 0.0))
        return passed()
"""


@pytest.mark.parametrize(
    "how",
    [pytest.param(("-n", "2"), marks=pytest.mark.nightly, id="xdist"), pytest.param(("--hf-isolate",), id="isolated")],
)
def test_at_every_stage(models: Project, how: tuple[str, ...]) -> None:
    """`kill -9` while it loads, converts, compiles, runs and compares: the record has the stage."""
    models.write("conftest.py", _AT_STAGES)
    stages = {"bert-base-uncased": "load", "roberta-base": "convert", "gpt2": "compile", "t5-small": "run"}
    script = {model: {"crash": "SIGKILL", "crash_stage": stage} for model, stage in stages.items()}
    stages["gpt2-medium"] = "compare"
    named = [argument for model in (*stages, "distilbert-base-uncased") for argument in ("--hf-model", model)]
    run = models.run(*how, *named, "--hf-device", "fake:0", "-k", "one", HFACCEL_FAKE=json.dumps(script))
    assert run.code == 1, run.output
    for model, stage in stages.items():
        (crashed,) = run.results[f"{model}-fake0-fp32"].checks
        assert (str(crashed.status), str(crashed.stage)) == ("crashed", stage)
        assert crashed.measures["signal"] == "SIGKILL"
        assert f"was killed by SIGKILL at stage {stage}" in str(crashed.reason)
    assert run.results["distilbert-base-uncased-fake0-fp32"].status == "passed"


def test_in_a_check_of_the_models_class(models: Project) -> None:
    run = run_models(models, DIES_IN="bert-base-uncased/class_one")
    assert run.code == 1, run.output
    crashed = run.results["bert-base-uncased"]
    assert (crashed.model, crashed.device, crashed.module) == ("bert-base-uncased", "class", "models")
    assert [(check.name, str(check.status)) for check in crashed.checks] == [
        ("class_one", "crashed"),
        ("class_two", "skipped"),
    ]
    assert "unknown" not in {result.device for result in run.results.values()}
    assert run.results["bert-base-uncased-fake0-fp32"].status == "passed"


def test_of_pytest_timeout_because_a_check_hangs(models: Project) -> None:
    models.write(
        "conftest.py",
        CHECKS
        + """
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.startswith("test_two[distilbert"):
            item.add_marker(pytest.mark.timeout(1, method="thread"))  # which ends the process
""",
    )
    run = run_models(models, HANGS_IN="distilbert-base-uncased/two")
    assert run.code == 1, run.output
    crashed = run.results["distilbert-base-uncased-fake0-fp32"]
    assert [check.name for check in crashed.checks if check.status == "crashed"] == ["two"]
    assert "exited with status 1" in str(crashed.reason)
    assert run.results["bert-base-uncased-fake0-fp32"].status == "passed"


def test_and_the_run_stops_at_the_first_failure(models: Project) -> None:
    run = run_models(models, "-x", "-n", "1", DIES_IN="bert-base-uncased/class_one")
    assert run.code == 2, run.output  # as xdist has it for any failure
    assert "stopping after 1 failures" in run.output
    assert run.results["bert-base-uncased"].status == "crashed"
    assert not run.summary["passed"]
    assert "distilbert-base-uncased" not in run.results


def test_in_a_teardown(models: Project) -> None:
    models.write(
        "test_hf_models.py",
        MODULE
        + """
    def test_own(self, hf_cell, dies_when_it_is_freed):
        pass
""",
    )
    models.write(
        "conftest.py",
        CHECKS
        + """

import pytest


@pytest.fixture
def dies_when_it_is_freed(hf_cell):
    yield
    if hf_cell.model.name == "bert-base-uncased":
        os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    run = run_models(models, "-k", "own")
    assert run.code == 1, run.output
    assert run.counts == {"passed": 2, "error": 1}  # as pytest tells a teardown that fails
    crashed = run.results["bert-base-uncased-fake0-fp32"]
    assert [(check.name, str(check.status)) for check in crashed.checks] == [("own", "crashed")]


def test_and_none_may_be_replaced(models: Project) -> None:
    run = run_models(models, "--max-worker-restart", "0", "-n", "1", DIES_IN="bert-base-uncased/class_one")
    assert run.code == 1, run.output
    outcomes = _outcomes(models)
    assert sum(outcomes.values()) == 10, outcomes
    for cell in _cells("distilbert-base-uncased"):
        result = run.results[cell]
        assert result.status == "incomplete"
        assert result.incomplete
        assert all("no worker was left" in str(check.reason) for check in result.checks)
    resumed = run_models(models, "--hf-resume")
    assert resumed.code == 1, resumed.output  # the crash is kept
    assert [str(resumed.results[cell].status) for model in MODELS for cell in _cells(model)] == [
        "crashed",
        "passed",
        "passed",
        "passed",
    ]


def _cells(model: str) -> tuple[str, str]:
    return model, f"{model}-fake0-fp32"


def _outcomes(project: Project) -> Counter[str]:
    """Test cases by outcome, as JUnit's readers count them."""
    cases = ElementTree.parse(project.directory / "junit.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    return Counter(next((child.tag for child in case if child.tag != "properties"), "passed") for case in cases)
