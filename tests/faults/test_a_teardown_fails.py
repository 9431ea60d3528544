"""What fails after a check has passed: the record says so, as pytest does."""

from __future__ import annotations

from tests.harness import Project


def test_the_cell_is_not_passed(project: Project) -> None:
    project.write(
        "conftest.py",
        """
import pytest


@pytest.fixture
def fails_when_it_is_freed():
    yield
    raise RuntimeError("it cannot be freed")
""",
    )
    project.write(
        "test_hf_bert.py",
        """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_own(self, hf_cell, fails_when_it_is_freed):
        pass
""",
    )
    run = project.run("--hf-device", "fake:0", "-k", "own")
    assert run.code == 1, run.output
    assert run.counts == {"passed": 1, "error": 1, "deselected": run.counts["deselected"]}
    (check,) = run.results["bert-base-uncased-fake0-fp32"].checks
    assert check.status == "error"
    assert "it cannot be freed" in str(check.reason)
