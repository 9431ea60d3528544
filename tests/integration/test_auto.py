"""The module that carries every class of transformers, and a run that goes on with another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.registry.auto_classes import every_pair, main_pairs
from tests.harness import Project

pytestmark = pytest.mark.slow

AUTO = (Path(__file__).parents[2] / "model_classes" / "test_hf_auto.py").read_text(encoding="utf-8")
PAIR = ("--hf-model", "opt/OPTModel", "--hf-device", "cpu")
FAILS = """
def pytest_hfaccel_checks(checks):
    @checks.check("mine", applies=lambda cell: cell.model.name == "opt/OPTModel")
    def mine(context):
        assert False, "on purpose"
"""


@pytest.fixture
def auto(project: Project) -> Project:
    project.write("test_hf_auto.py", AUTO)
    return project


def test_it_has_a_cell_for_every_class(auto: Project) -> None:
    run = auto.run("test_hf_auto.py", "--all-models", "--hf-device", "cpu", "--collect-only", "-q")
    assert run.code == 0
    assert (
        f"hfaccel: {len(every_pair())} cells: {len(every_pair())} models [tiny: {len(every_pair())}] x cpu x fp32"
        in run.output
    )
    run = auto.run("test_hf_auto.py::TestAuto", "--all-models", "--hf-device", "cpu", "--collect-only", "-q")
    assert f"hfaccel: {len(main_pairs())} cells" in run.output


def test_it_leaves_to_a_module_what_that_module_tests(auto: Project) -> None:
    run = auto.run("--hf-model", "bert/BertModel", "--hf-model", "opt/OPTModel", "--collect-only", "-q")
    tests = [line for line in run.output.splitlines() if "test_parity" in line]
    assert len(tests) == 2
    assert any("test_hf_bert.py::TestBert::test_parity[bert--BertModel" in line for line in tests)
    assert any("test_hf_auto.py::TestAuto::test_parity[opt--OPTModel" in line for line in tests)


def test_a_wildcard_picks_classes_of_a_model_type(auto: Project) -> None:
    run = auto.run("test_hf_auto.py", "--hf-model", "opt*", "--collect-only", "-q")
    assert "test_parity[opt--OPTForCausalLM" in run.output
    assert "bert" not in run.output.partition("hfaccel:")[0]


def test_a_resumed_run_runs_what_is_missing_and_keeps_what_failed(auto: Project) -> None:
    auto.write("conftest.py", FAILS)
    first = auto.run("test_hf_auto.py", *PAIR)
    assert first.code == 1
    assert first.statuses("opt--OPTModel-cpu-fp32")["mine"] == "error"
    auto.write(
        "conftest.py", FAILS.replace('assert False, "on purpose"', "raise SystemExit")
    )  # it would end the run, were it run
    second = auto.run("test_hf_auto.py", *PAIR, "--hf-model", "opt/OPTForCausalLM", "--hf-resume")
    assert second.code == 1  # a failure of the first run is one of this run
    assert second.statuses("opt--OPTModel-cpu-fp32") == first.statuses("opt--OPTModel-cpu-fp32")
    assert second.results["opt--OPTForCausalLM-cpu-fp32"].status == "passed"
    models = {key.partition(" ")[0] for key in second.summary["pool"]["loads_by_key"]}
    assert models == {"opt/OPTForCausalLM"}
