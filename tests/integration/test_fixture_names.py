"""The fixtures have names of their own; the former ones work for one release, and give way to anybody else's."""

from __future__ import annotations

from tests.harness import Project

MODULE = """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_own(self, {parameters}):
        {body}
"""
PLACEMENT = ("--hf-device", "fake:0", "-k", "placement or own or elsewhere")
THEIRS = """
import pytest


@pytest.fixture
def check():
    return "theirs"
"""


def test_a_fixture_of_the_user_s_called_check_changes_nothing(project: Project) -> None:
    project.write("conftest.py", THEIRS)
    project.write("test_hf_bert.py", MODULE.format(parameters="check, hf_cell", body="assert check == 'theirs'"))
    project.write("test_other.py", "def test_elsewhere(check):\n    assert check == 'theirs'\n")
    run = project.run(*PLACEMENT, "-W", "error")
    assert run.code == 0, run.output
    assert run.counts == {"passed": 3, "deselected": run.counts["deselected"]}
    assert run.statuses("bert-base-uncased-fake0-fp32") == {"placement": "passed", "own": "passed"}


def test_a_plugin_s_fixture_called_check_changes_nothing(project: Project) -> None:
    """pytest-check ships one."""
    project.write("their_plugin.py", THEIRS)
    project.write("test_other.py", "def test_elsewhere(check):\n    assert check == 'theirs'\n")
    run = project.run("-p", "their_plugin", *PLACEMENT, "-W", "error", PYTHONPATH=".")
    assert run.code == 0, run.output
    assert run.counts["passed"] == 2


def test_a_former_name_works_with_a_warning(project: Project) -> None:
    body = "assert cell.device.kind == 'fake'; assert loaded.nbytes; check('placement')"
    project.write("test_hf_bert.py", MODULE.format(parameters="cell, loaded, check", body=body))
    run = project.run(*PLACEMENT)
    assert run.code == 0, run.output
    for old, new in (("cell", "hf_cell"), ("loaded", "hf_model"), ("check", "hf_check")):
        assert f"The fixture '{old}' is now called '{new}'." in run.output


def test_former_names_of_options_and_attributes_work_with_a_warning(project: Project) -> None:
    module = MODULE.format(parameters="hf_cell", body="pass").replace(
        "default_model", "yields = True\n    default_model"
    )
    project.write("test_hf_bert.py", module)
    run = project.run("--hf-require", "fake:0", *PLACEMENT)
    assert run.code == 0, run.output
    assert "--hf-require is now called --hf-require-device." in run.output
    assert "TestBert.yields is now called fallback." in run.output


def test_an_option_may_stand_in_the_configuration_file(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nhf_device = fake:0,fake:1\nhf_dtype = fp61\n")
    refused = project.run("-k", "placement")
    assert refused.code == 4, refused.output
    run = project.run("-k", "placement", "--hf-dtype", "fp32")
    assert run.code == 0, run.output
    assert set(run.results) == {"bert-base-uncased-fake0-fp32", "bert-base-uncased-fake1-fp32"}
