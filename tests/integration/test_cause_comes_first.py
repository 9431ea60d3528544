"""The first line of a failure begins with its cause: in pytest's output, in JUnit XML and on the page of the run."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.harness import Project
from tests.unit.reporting.test_reports_page import index_of

pytestmark = pytest.mark.slow

MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
CHECKS = """
from pytest_hfaccel.checks.base import failed
from pytest_hfaccel.core.results import Cause


def pytest_hfaccel_checks(checks):
    @checks.check("rounds")
    def rounds(context):
        outcome = failed("logits: rel-L2 0.03 > 1e-05")
        outcome.cause = Cause.NUMERICS
        return outcome

    @checks.check("differs")
    def differs(context):
        return failed("logits: rel-L2 0.5 > 1e-05")
"""
KNOWN = "numerics: rounds failed at stage compare: logits: rel-L2 0.03 > 1e-05"
GUESSED = "probably runtime or driver: differs failed at stage compare: logits: rel-L2 0.5 > 1e-05"


def test_the_first_line_of_a_failure_begins_with_its_cause(project: Project) -> None:
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_hf_models.py", MODULE)
    project.write("conftest.py", CHECKS)
    options = ("--hf-model", "bert-base-uncased", "--hf-device", "fake:0", "-k", "rounds or differs")
    run = project.run(*options, "--junitxml", "junit.xml")
    assert run.code == 1
    assert f"\n{KNOWN}\n" in run.output
    assert f"\n{GUESSED}\n" in run.output
    failures = ElementTree.parse(project.directory / "junit.xml").iter("failure")  # noqa: S314 - pytest wrote it
    assert sorted(str(each.get("message")) for each in failures) == [f"Failed: {KNOWN}", f"Failed: {GUESSED}"]
    page = index_of((run.reports / "index.html").read_text(encoding="utf-8"))
    (cell,) = page["cells"]
    assert [page["texts"][check[5]] for check in cell[5]] == [KNOWN.split(":")[0], GUESSED.split(":")[0]]
    checks = {check.name: check.cause for check in run.results["bert-base-uncased-fake0-fp32"].checks}
    assert checks == {"rounds": "numerics", "differs": ""}
