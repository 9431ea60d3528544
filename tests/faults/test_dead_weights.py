"""A checkpoint that is read as it is, and computes nothing: one weight is NaN, or all are zero."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.results import CheckOutcome, Status
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from tests.harness import HfRun, Project

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow

_BROKEN = "bert.encoder.layer.1.output.dense"


def _with_one_nan(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name == f"{_BROKEN}.weight":
        weight[2, 1] = float("nan")
    return weight


def _with_zeros(_name: str, weight: torch.Tensor) -> torch.Tensor:
    return weight * 0


@pytest.fixture(scope="module")
def run(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> HfRun:
    """One run over a sound checkpoint and two dead copies of it."""
    from safetensors.torch import load_file, save_file

    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    built = CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    project = Project(tmp_path_factory.mktemp("project"), shared_cache)
    changes: dict[str, Callable[[str, torch.Tensor], torch.Tensor]] = {
        "sound": lambda _name, weight: weight,
        "one-nan": _with_one_nan,
        "zeros": _with_zeros,
    }
    for kind, change in changes.items():
        directory = project.directory / kind
        shutil.copytree(built.directory, directory, copy_function=shutil.copyfile)
        weights = load_file(directory / "model.safetensors")
        changed = {name: change(name, weight).contiguous() for name, weight in weights.items()}
        save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})
    models = [argument for kind in changes for argument in ("--hf-model", f"./{kind}")]
    return project.run("--hf-device", "cpu", "-k", "not task_sense", *models)


def _outcomes(run: HfRun, kind: str) -> dict[str, CheckOutcome]:
    return {check.name: check for check in run.results[f"{kind}-cpu-fp32"].checks}


def test_the_sound_one_passes(run: HfRun) -> None:
    assert {check.status for check in _outcomes(run, "sound").values()} == {Status.PASSED}, run.output


def test_one_nan_fails_and_its_module_is_named(run: HfRun) -> None:
    assert run.code == 1
    outcomes = _outcomes(run, "one-nan")
    assert {outcomes[name].status for name in ("forward", "parity", "pipeline")} == {Status.FAILED}
    first = f"the first module of the model on cpu that makes one is {_BROKEN} (Linear, 1 values of its weight"
    assert first in (outcomes["forward"].reason or "")


def test_zeros_fail_sensitivity_and_canary(run: HfRun) -> None:
    outcomes = _outcomes(run, "zeros")
    assert {name for name, outcome in outcomes.items() if outcome.status == Status.FAILED} == {"sensitivity", "canary"}
    assert "the outputs do not depend on input_ids" in (outcomes["sensitivity"].reason or "")


def test_cells_whose_parity_does_not_notice_fp16_are_counted_and_named(run: HfRun) -> None:
    assert "twin" in _outcomes(run, "sound")["canary"].measures
    assert run.summary["precision_twins"] == {"noticed": 2, "blind_to": {"fp16": ["zeros-cpu-fp32"]}}
    assert "precision: 2 cells would notice the next lower one, 1 blind to fp16 (zeros-cpu-fp32)" in run.output
