"""What is loaded is not what the checkpoint's files say. Every device gets it, so comparing devices cannot tell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.results import NOT_REACHED, Stage, Status
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

PLUGIN = """
import torch
import transformers
from pathlib import Path

right = transformers.PreTrainedModel.from_pretrained.__func__


def wrong(cls, directory, *args, **options):
    loaded = right(cls, directory, *args, **options)
    change(loaded[0] if isinstance(loaded, tuple) else loaded, Path(directory).name)
    return loaded


def change(model, kind):
    with torch.no_grad():
        layer = model.bert.encoder.layer[0]
        if kind == "row-flipped":
            layer.intermediate.dense.weight[3] *= -1
        elif kind == "bias-nudged":
            layer.output.dense.bias[0] += 1e-6
        elif kind == "weight-drawn-anew":
            layer.output.dense.weight.normal_(std=0.02)
        elif kind == "weights-swapped":
            query, key = layer.attention.self.query.weight, layer.attention.self.key.weight
            query.data, key.data = key.data, query.data
        elif kind == "epsilon-changed":
            layer.output.LayerNorm.eps = 1e-5


transformers.PreTrainedModel.from_pretrained = classmethod(wrong)
"""

WRONG = {
    "row-flipped": "bert.encoder.layer.0.intermediate.dense.weight",
    "bias-nudged": "bert.encoder.layer.0.output.dense.bias",
    "weight-drawn-anew": "bert.encoder.layer.0.output.dense.weight",
    "weights-swapped": "bert.encoder.layer.0.attention.self.query.weight",
    "epsilon-changed": "bert.encoder.layer.0.output.LayerNorm.eps is 1e-05 instead of 1e-12",
}


@pytest.fixture(scope="module")
def run(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> HfRun:
    """One run over a sound checkpoint and copies of it, each of which is spoilt by whatever loads it."""
    one_layer = {"num_hidden_layers": 1}
    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask", dims=one_layer)
    built = CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    project = Project(tmp_path_factory.mktemp("project"), shared_cache)
    models = []
    for kind in ("sound", *WRONG):
        # With a time of its own for each: else one conversion would do for all.
        shutil.copytree(built.directory, project.directory / kind, copy_function=shutil.copyfile)
        models += ["--hf-model", f"./{kind}"]
    project.write("conftest.py", PLUGIN)
    return project.run("--hf-device", "cpu", "--hf-device", "openvino:CPU", "-k", "not task_sense", *models)


def test_the_sound_one_passes_everywhere(run: HfRun) -> None:
    for cell in ("sound", "sound-cpu-fp32", "sound-openvinocpu-fp32"):
        assert {check.status for check in run.results[cell].checks} <= {Status.PASSED, Status.SKIPPED}, run.output


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("device", ["cpu", "openvinocpu"])
def test_a_wrong_one_fails_on_each_device_by_itself_and_blames_none(run: HfRun, kind: str, device: str) -> None:
    first, *others = run.results[f"{kind}-{device}-fp32"].checks
    assert first.status.is_bad, run.output
    assert first.stage == Stage.LOAD
    assert WRONG[kind] in (first.reason or "")
    assert "No device has a part in this" in (first.reason or "")
    assert "Traceback" not in (first.reason or "")
    assert all((check.reason or "").startswith(NOT_REACHED) for check in others)


@pytest.mark.parametrize("kind", WRONG)
def test_the_class_level_fails_too(run: HfRun, kind: str) -> None:
    statuses = {check.name: check.status for check in run.results[kind].checks}
    assert statuses["from_pretrained"].is_bad
