"""A full disk, a wrong product, a device that is silent after a crash: `infra_error`, and no verdict on the model."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tests.harness import Project

_FULL = """
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path

from pytest_hfaccel.backends.fake.backend import FakeBackend
from pytest_hfaccel.checks.base import passed
from pytest_hfaccel.core.errors import BackendUnavailable

here = Path(__file__).parent
usage = namedtuple("usage", "total used free")
asked = shutil.disk_usage
shutil.disk_usage = lambda path: usage(10**9, 10**9, 0) if (here / "full").exists() else asked(path)


def confirm(self, device, dtype="fp32"):
    if (here / "dead").exists() and device.target == "0":
        raise BackendUnavailable(f"{device}: it has fallen silent")
    return {"name": "fake"}


FakeBackend.confirm = confirm


def pytest_hfaccel_checks(checks):
    @checks.check("runs")
    def runs(context):
        if context.cell.model.name == "bert-base-uncased" and context.cell.device.target == "0":
            if file := os.environ.get("DIES_WITH"):
                (here / file).touch()
                os.kill(os.getpid(), signal.SIGSEGV)
        return passed()
"""
_ARGUMENTS = (
    *("--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased"),
    *("--hf-device", "fake:0,fake:1", "-k", "runs or placement"),
)
_BERT, _DISTILBERT = "bert-base-uncased-fake0-fp32", "distilbert-base-uncased-fake0-fp32"


@pytest.fixture
def sick(project: Project) -> Project:
    """A project whose disk is full while the file `full` is there, and `fake:0` silent while `dead` is."""
    project.write("conftest.py", _FULL)
    return project


def test_before_the_first_cell(sick: Project) -> None:
    full = sick.write("full", "")
    run = sick.run(*_ARGUMENTS, "--junitxml=junit.xml", "-p", "no:xdist")
    assert run.code == 1, run.output
    assert run.summary["counts"]["cells"] == {"infra_error": 4}
    assert "are free, 64.0 MiB are needed" in str(run.results[_BERT].reason)
    assert run.summary["passed"] is False
    cases = ElementTree.parse(sick.directory / "junit.xml").getroot().iter("failure")  # noqa: S314 - pytest wrote it
    assert all("infra_error at stage" in str(case.get("message")) for case in cases)

    full.unlink()
    resumed = sick.run(*_ARGUMENTS, "--hf-resume")
    assert resumed.code == 0, resumed.output
    assert "of 4 cells 0 are kept, 4 had not finished" in resumed.output
    assert resumed.summary["counts"]["cells"] == {"passed": 4}


def test_a_crash_is_the_machine_s(sick: Project) -> None:
    """What a process died of while the disk was full says nothing of its model."""
    run = sick.run(*_ARGUMENTS, "--hf-isolate", DIES_WITH="full")
    assert run.code == 1, run.output
    assert run.statuses(_BERT)["runs"] == "infra_error"
    assert "SIGSEGV" in str(run.results[_BERT].reason)
    assert "the machine is not fit" in str(run.results[_BERT].reason)
    assert run.results[_DISTILBERT].status == "infra_error"


@pytest.mark.parametrize("arguments", [("--hf-isolate",), ("-n", "1")], ids=["isolated", "xdist"])
def test_a_device_is_silent_after_a_crash(sick: Project, arguments: tuple[str, ...]) -> None:
    run = sick.run(*_ARGUMENTS, *arguments, DIES_WITH="dead")
    assert run.code == 1, run.output
    assert run.results[_BERT].status == "crashed"
    assert run.results[_DISTILBERT].status == "infra_error"
    assert "after a crash on it, fake:0 does not answer: fake:0: it has fallen silent" in str(
        run.results[_DISTILBERT].reason
    )
    others = [cell for cell in run.results if "fake1" in cell]
    assert {str(run.results[cell].status) for cell in others} == {"passed"}
    assert len(others) == 2


def test_the_processor_computes_wrongly(sick: Project) -> None:
    """An entry that expects a failure does not cover it."""
    sick.write("conftest.py", _FULL + "\nimport torch\n\ntorch.Tensor.__matmul__ = lambda self, other: self * 0\n")
    entry = {"device": "fake:*", "stage": "resolve", "check": "*", "reason": "of no matter"}
    models = {"mine/bert": {"architecture": "BertForMaskedLM", "expect": [entry]}}
    sick.write("mine.json", json.dumps({"version": 1, "models": models}))
    arguments = ("--hf-registry", "mine.json", "--hf-model", "mine/bert", "--hf-device", "fake:0", "-k", "placement")
    run = sick.run(*arguments)
    assert run.code == 1, run.output
    (record,) = run.records.values()
    assert record.status == "infra_error"
    assert "the CPU computes a wrong product of two matrices" in str(record.reason)
