"""Two model class modules, or two classes of one, that test the same model: each has a record of its own."""

from __future__ import annotations

from tests.harness import Project

_CELL = "bert-base-uncased-fake0-fp32"
_SELECTED = ("--hf-device", "fake:0", "-k", "placement or loads")
_CHECKS = """
def pytest_hfaccel_checks(checks):
    @checks.check("loads")
    def loads(context):
        from pytest_hfaccel.core.results import CheckOutcome

        assert context.loaded
        return CheckOutcome("loads")
"""
_SECOND = """
from pytest_hfaccel import ModelClassTests


class TestMaskedModels(ModelClassTests):
    architectures = ("*ForMaskedLM",)
    default_model = "bert-base-uncased"


class TestMaskedModelsAgain(TestMaskedModels):
    pass
"""


def test_each_has_a_record_of_its_own(project: Project) -> None:
    project.write("conftest.py", _CHECKS)
    project.write("test_hf_masked.py", _SECOND)
    run = project.run(*_SELECTED)
    assert run.code == 0, run.output
    assert run.counts == {"passed": 6, "deselected": run.counts["deselected"]}
    modules = ("bert", "masked", "masked.TestMaskedModelsAgain")
    assert set(run.records) == {(module, _CELL) for module in modules}
    for record in run.records.values():
        assert sorted(check.name for check in record.checks) == ["loads", "placement"]
        assert not record.incomplete
    assert len(list((run.reports / "by_class").iterdir())) == 3

    resumed = project.run(*_SELECTED, "--hf-resume", HFACCEL_FAKE='{"*": {"fail_stage": "load"}}')
    assert resumed.code == 0, resumed.output  # nothing is run: it would fail
    assert set(resumed.records) == set(run.records)

    # The file whose module the earlier run did not have is run, not passed by another module's record.
    project.write("test_hf_more.py", _SECOND.replace("TestMasked", "TestMore"))
    more = project.run(*_SELECTED, "--hf-resume", HFACCEL_FAKE='{"*": {"fail_stage": "load"}}')
    assert more.code == 1, more.output
    assert more.records["more", _CELL].status == "error"
    assert more.records["masked", _CELL].status == "passed"


def test_a_failure_stands_in_every_record(project: Project) -> None:
    project.write("conftest.py", _CHECKS)
    project.write("test_hf_masked.py", _SECOND)
    run = project.run(*_SELECTED, HFACCEL_FAKE='{"*": {"fail_stage": "load"}}')
    assert run.code == 1, run.output
    assert {key: str(record.status) for key, record in run.records.items()} == {
        ("bert", _CELL): "error",
        ("masked", _CELL): "error",
        ("masked.TestMaskedModelsAgain", _CELL): "error",
    }
