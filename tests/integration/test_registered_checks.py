"""A check that a conftest or a plugin registers is a test and stands in the reports like a built-in one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness import Project

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


@pytest.fixture(scope="module")
def example() -> str:
    """The example of the guide, which registers `small_outputs`."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if '@checks.check("small_outputs")' in block]
    return str(block)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "options"), [("conftest.py", ()), ("my_plugin.py", ("-p", "my_plugin", "-n", "2"))])
def test_it_is_a_test_and_a_check_of_its_own(
    project: Project, example: str, file: str, options: tuple[str, ...]
) -> None:
    project.write(file, example)
    run = project.run(*options, "-v", "--hf-device", "cpu", "-k", "small_outputs or placement", PYTHONPATH=".")
    assert run.code == 0, run.output
    assert "test_small_outputs[bert-base-uncased-cpu-fp32]" in run.output
    checks = {check.name: str(check.status) for check in run.results["bert-base-uncased-cpu-fp32"].checks}
    assert checks == {"placement": "passed", "small_outputs": "passed"}


def test_it_is_collected_where_it_applies_only(project: Project) -> None:
    project.write(
        "conftest.py",
        "def pytest_hfaccel_checks(checks):\n"
        "    checks.check('never', applies=lambda cell: False)(lambda context: None)\n"
        "    checks.check('once', level='class')(lambda context: None)\n",
    )
    listed = project.run("--collect-only", "-q", "--hf-device", "fake:0").output
    assert "test_never[" not in listed
    assert "test_once[bert-base-uncased]" in listed


def test_a_class_may_have_its_own_test_of_a_registered_check(project: Project) -> None:
    project.write("conftest.py", "def pytest_hfaccel_checks(checks):\n    checks.check('mine')(lambda context: None)\n")
    module = project.directory / "test_hf_bert.py"
    own = "\n    def test_mine(self, hf_check):\n        print('not run')\n"
    module.write_text(module.read_text(encoding="utf-8") + own, encoding="utf-8")
    run = project.run("-s", "--hf-device", "fake:0", "-k", "mine")
    assert run.code == 0, run.output
    assert "not run" in run.output
