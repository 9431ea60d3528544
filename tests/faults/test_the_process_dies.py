"""The process of a run dies in a test, without pytest-xdist: the next run says so, and does not die of it again."""

from __future__ import annotations

import pytest

from tests.harness import Project

_CHECKS = """
import os, signal


def pytest_hfaccel_checks(checks):
    from pytest_hfaccel.core.results import CheckOutcome

    @checks.check("before")
    def before(context):
        assert context.loaded
        return CheckOutcome("before")

    @checks.check("deadly")
    def deadly(context):
        if context.cell.device.target == "1":
            {end}
        return CheckOutcome("deadly")

    @checks.check("after")
    def after(context):
        return CheckOutcome("after")
"""
_FAKE = ("--hf-device", "fake:0,fake:1", "-k", "before or deadly or after")
_DEADLY = "bert-base-uncased-fake1-fp32"
_HARMLESS = "bert-base-uncased-fake0-fp32"


@pytest.mark.parametrize(
    ("end", "code"), [("os.kill(os.getpid(), signal.SIGSEGV)", -11), ("os._exit(0)", 0)], ids=["SIGSEGV", "_exit"]
)
def test_the_next_run_says_so_and_a_resumed_one_goes_on(project: Project, end: str, code: int) -> None:
    project.write("conftest.py", _CHECKS.format(end=end))
    first = project.run(*_FAKE)
    assert first.code == code
    assert first.summary["passed"] is False
    assert first.summary["ended"] == "running"

    resumed = project.run(*_FAKE, "--hf-resume")
    run = next((first.reports / "runs").glob("0001-*")).name
    assert f"hfaccel: the last run ({run}) ended early while running {_DEADLY} deadly" in resumed.output
    assert resumed.code == 1, resumed.output
    assert resumed.statuses(_DEADLY) == {"before": "passed", "deadly": "crashed", "after": "skipped"}
    assert resumed.statuses(_HARMLESS) == {"before": "passed", "deadly": "passed", "after": "passed"}
    assert "--hf-resume-retry crashed" in str(resumed.results[_DEADLY].reason)

    again = project.run(*_FAKE, "--hf-resume")
    assert again.code == 1, again.output
    assert "hfaccel: the last run" not in again.output
    assert again.statuses(_DEADLY) == resumed.statuses(_DEADLY)

    forced = project.run(*_FAKE, "--hf-resume", "--hf-resume-retry", "crashed")
    assert forced.code == code
    plain = project.run(*_FAKE, "--collect-only")
    assert f"ended early while running {_DEADLY} deadly" in plain.output

    project.write("conftest.py", _CHECKS.format(end="pass"))
    mended = project.run(*_FAKE, "--hf-resume", "--hf-resume-retry", "crashed")
    assert mended.code == 0, mended.output
    assert mended.statuses(_DEADLY)["deadly"] == "passed"


def test_a_test_of_the_user_s_own_takes_it_down(project: Project) -> None:
    module = project.directory / "test_hf_bert.py"
    own = "\n    def test_own(self, hf_cell, hf_model):\n        import os; os.kill(os.getpid(), 9)\n"
    module.write_text(module.read_text(encoding="utf-8") + own, encoding="utf-8")
    arguments = ("--hf-device", "fake:0", "-k", "placement or own")
    assert project.run(*arguments).code == -9
    run = project.run(*arguments, "--hf-resume")
    assert run.code == 1, run.output
    assert run.statuses("bert-base-uncased-fake0-fp32")["own"] == "crashed"


def test_a_test_that_has_nothing_to_do_with_models_takes_it_down(project: Project) -> None:
    project.write("test_other.py", "import os\n\n\ndef test_other():\n    os._exit(0)\n")
    arguments = ("--hf-device", "fake:0", "-k", "placement or other")
    assert project.run(*arguments).code == 0
    run = project.run(*arguments, "--hf-resume", "--deselect", "test_other.py")
    assert run.code == 0, run.output
    assert "ended early while running test_other.py::test_other" in run.output
    assert "of 1 cells 1 are kept" in run.output
