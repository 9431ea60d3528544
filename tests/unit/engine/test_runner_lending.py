"""What a run loads once, and what it does not keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.spec import CLASS_LEVEL, CPU, Cell, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.numerics import reference

pytestmark = pytest.mark.slow

BERT = ModelSpec("bert", "BertForMaskedLM", "fill-mask")
TINY = WeightsChoice(Weights.TINY, "for a test")
CLASS, HERE = Cell(BERT, CLASS_LEVEL, "fp32", TINY), Cell(BERT, CPU, "fp32", TINY)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(RunConfig(cache=str(tmp_path)))
    yield runner
    runner.close()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The dtypes at which the checkpoint is loaded for a cell, in order; a reference is loaded by a way of its own."""
    from pytest_hfaccel.checkpoints import Checkpoint

    read, seen = Checkpoint.torch_model, []

    def counted(self: Checkpoint, dtype: str, device: str = "cpu") -> object:
        seen.append(dtype)
        return read(self, dtype, device)

    monkeypatch.setattr(Checkpoint, "torch_model", counted)
    return seen


def test_a_small_checkpoint_is_read_once_for_all_checks_of_the_cpu(runner: Runner, loads: list[str]) -> None:
    for cell in (CLASS, HERE):
        assert {str(outcome.status) for outcome in runner.run(cell).checks} == {"passed"}
    assert loads == ["fp32", "fp16"]  # fp16 for the canary
    assert runner.pool.stats()["loads_by_key"] == {"bert tiny cpu fp32": 1, "bert tiny cpu fp16": 1}


def test_a_large_one_is_freed_after_use(runner: Runner, loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SMALL_BYTES", 0)
    assert {str(outcome.status) for outcome in runner.run(CLASS).checks} == {"passed"}
    assert runner.pool.usage() == []
    assert runner.reference(HERE).dtype == "fp64"
    assert loads == ["fp32"]


def test_another_dtype_is_lent_for_its_rounding(runner: Runner, loads: list[str]) -> None:
    assert runner.reference(HERE).error_of("bf16")["logits"].rel_l2 > 1e-4
    assert loads == ["bf16"]


def test_the_outputs_of_a_cell_are_of_one_run(runner: Runner) -> None:
    run = runner.open(HERE)
    assert run.outputs is run.outputs
    run.close()
