"""A process may use no more memory than its limit (`ulimit -v`): that is what the outcome says, and the run goes on."""

from __future__ import annotations

from tests.harness import Project

_CONFTEST = """
import mmap
import resource

from pytest_hfaccel.checks.base import passed

TOO_MUCH = 2**32
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))


def pytest_hfaccel_checks(checks):
    @checks.check("python")
    def python(context):
        return passed(size=len(bytearray(TOO_MUCH)))

    @checks.check("system")
    def system(context):
        return passed(size=len(mmap.mmap(-1, TOO_MUCH)))

    @checks.check("after")
    def after(context):
        return passed()
"""
_MODULE = """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_own(self, hf_cell):
        bytearray(2**32)
"""


def test_each_outcome_says_so_and_the_run_goes_on(project: Project) -> None:
    project.write("conftest.py", _CONFTEST)
    project.write("test_hf_bert.py", _MODULE)
    run = project.run("-n", "1", "--hf-device", "fake:0", "-k", "python or system or after or own or placement")
    assert run.code == 1, run.output
    assert "crashed worker" not in run.output
    assert run.statuses("bert-base-uncased-fake0-fp32") == {
        "python": "out_of_memory",
        "system": "out_of_memory",
        "own": "out_of_memory",
        "after": "passed",
        "placement": "passed",
    }
