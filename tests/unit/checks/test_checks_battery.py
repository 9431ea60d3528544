"""Which checks there are, and which of them a cell has: decided without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_hfaccel.checks import built_in_checks
from pytest_hfaccel.checks.base import CELL, CLASS, Check, failed, passed
from pytest_hfaccel.checks.pipeline import EXPECTED
from pytest_hfaccel.checks.task_sense import CLAIMS_OF_TASK
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.spec import CPU, Cell, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.engine.model_class import ModelClassTests


def _names(task: str, architecture: str = "X", weights: Weights = Weights.TINY) -> set[str]:
    cell = Cell(ModelSpec("x", architecture, task), CPU, "fp32", WeightsChoice(weights, ""))
    return {check.name for check in built_in_checks() if check.applies(cell)}


def test_the_battery_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from pytest_hfaccel.checks import built_in_checks; built_in_checks();"
        "print(sorted({'torch', 'transformers', 'numpy', 'openvino'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_check_is_a_test_of_the_model_classes_in_the_same_order_and_has_a_summary() -> None:
    known = [name for each in reversed(ModelClassTests.__mro__) for name in vars(each) if name.startswith("test_")]
    assert known == [f"test_{check.name}" for check in built_in_checks()]
    for check in built_in_checks():
        assert check.summary.endswith("."), check.name


def test_the_class_comes_before_the_cell_and_parity_before_performance() -> None:
    checks = list(built_in_checks())
    assert [check.name for check in checks if check.level == CLASS] == ["resolves", "from_pretrained"]
    assert {check.level for check in checks[2:]} == {CELL}
    names = [check.name for check in checks]
    assert names.index("parity") < names.index("canary") < names.index("performance") == len(names) - 1


def test_a_cell_has_the_checks_its_task_implies() -> None:
    assert {"padding_invariance", "pipeline"} <= _names("fill-mask")
    assert "generation" not in _names("fill-mask")
    assert not {"padding_invariance", "generation", "pipeline"} & _names("mask-generation")
    assert "generation" in _names("automatic-speech-recognition", "WhisperForConditionalGeneration")
    assert "generation" not in _names("automatic-speech-recognition", "Wav2Vec2ForCTC")


def test_sense_is_asked_of_trained_models_only() -> None:
    assert "task_sense" not in _names("fill-mask")
    assert "task_sense" in _names("fill-mask", weights=Weights.PRETRAINED)


def test_every_pipeline_of_a_task_can_be_computed_directly() -> None:
    assert {task.pipeline for task in TASKS.values() if task.pipeline} == set(EXPECTED)
    assert set(CLAIMS_OF_TASK) <= set(TASKS)


def test_a_registry_refuses_a_second_check_of_a_name_and_an_unknown_level() -> None:
    registry = built_in_checks()

    def nothing(_context: object) -> CheckOutcome:
        return CheckOutcome("parity")

    with pytest.raises(ValueError, match="'parity' is registered already"):
        registry.add(Check("parity", nothing, Stage.RUN, CELL, lambda _: True))
    with pytest.raises(ValueError, match=r"level 'model' is unknown\. Allowed: class, cell"):
        registry.add(Check("mine", nothing, Stage.RUN, "model", lambda _: True))


def test_each_run_grows_a_registry_of_its_own() -> None:
    mine = built_in_checks()
    mine.check("mine")(lambda _context: CheckOutcome("mine"))
    assert "mine" in mine
    assert "mine" not in built_in_checks()


def test_a_name_given_to_an_outcome_still_counts_with_a_warning() -> None:
    assert passed(rel_l2=0.1).name == ""
    with pytest.warns(DeprecationWarning, match="no longer an argument of passed"):
        assert passed("mine").name == "mine"
    with pytest.warns(DeprecationWarning, match="no longer an argument of passed"):
        outcome = failed("mine", "too far", rel_l2=0.5)
    assert (outcome.name, outcome.reason, outcome.measures) == ("mine", "too far", {"rel_l2": 0.5})
