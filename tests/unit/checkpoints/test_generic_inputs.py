"""Tiny checkpoints of classes that no table and no recipe was written for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
from pytest_hfaccel.checkpoints.build import load_smoke_forward, run_forward
from pytest_hfaccel.checkpoints.fingerprint import SMOKE_FORWARD_FILE
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import CPU, Cell, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.engine.runner import Runner
from pytest_hfaccel.registry.auto_classes import match_pairs

pytestmark = pytest.mark.slow

PAIRS = [
    "opt/OPTModel",
    "qwen2_vl/Qwen2VLForConditionalGeneration",
    "informer/InformerModel",
    "superglue/SuperGlueForKeypointMatching",
    "gemma4/Gemma4ForConditionalGeneration",
    "longformer/LongformerForQuestionAnswering",
    "seamless_m4t/SeamlessM4TModel",
    "hiera/HieraForPreTraining",
]


def prepared(cache: Path, name: str) -> Checkpoint:
    (spec,) = match_pairs(name)
    return CheckpointStore(cache).prepare(spec, WeightsChoice(Weights.TINY, "for a test"))


@pytest.mark.parametrize("name", PAIRS)
def test_it_runs_and_comes_back_unchanged(name: str, tmp_path: Path) -> None:
    import torch

    checkpoint = prepared(tmp_path, name)
    record = load_smoke_forward(checkpoint.directory)
    assert record is not None
    assert record.outputs
    loaded = run_forward(checkpoint.torch_model("fp32"), checkpoint.sample().forward)
    for key, value in record.outputs.items():
        assert value.isfinite().all() or not value.is_floating_point()
        # Not to the bit: threads may add in another order.
        torch.testing.assert_close(loaded[key], value, rtol=1e-5, atol=1e-5)


def test_a_tokenizer_is_made_where_the_task_has_a_recipe(tmp_path: Path) -> None:
    checkpoint = prepared(tmp_path, "opt/OPTForCausalLM")
    assert set(checkpoint.processors()) == {"tokenizer"}
    assert checkpoint.sample().generate is not None


def test_a_changed_weight_shows(tmp_path: Path) -> None:
    """The kept outputs are worth something only if they tell a broken model."""
    import torch

    checkpoint = prepared(tmp_path, "opt/OPTModel")
    record = load_smoke_forward(checkpoint.directory)
    assert record is not None
    model = checkpoint.torch_model("fp32")
    model.get_input_embeddings().weight += 0.1
    changed = run_forward(model, record.inputs)
    assert any(not torch.equal(changed[key], value) for key, value in record.outputs.items())


def test_a_model_that_runs_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"a BarkModel cannot be built: NotImplementedError: .*\"forward\""):
        prepared(tmp_path, "bark/BarkModel")
    assert not list((tmp_path / "checkpoints").glob(f"*/{SMOKE_FORWARD_FILE}"))


def test_random_weights_of_a_pair_have_its_real_dimensions(tmp_path: Path) -> None:
    small = {"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 1}
    spec = ModelSpec("opt", "OPTModel", "base-model", dims={**small, "num_attention_heads": 2, "vocab_size": 2000})
    checkpoint = CheckpointStore(tmp_path).prepare(spec, WeightsChoice(Weights.RANDOM, "for a test"))
    assert tuple(checkpoint.torch_model("fp32").get_input_embeddings().weight.shape) == (2000, 32)
    assert set(checkpoint.sample().forward) == {"input_ids", "attention_mask"}


def test_an_image_reaches_the_end_of_a_tiny_efficientnet(tmp_path: Path) -> None:
    runner = Runner(RunConfig(cache=str(tmp_path)))
    spec = match_pairs("efficientnet/EfficientNetModel")[0]
    outcome = runner.open(Cell(spec, CPU, "fp32", WeightsChoice(Weights.TINY, "for a test"))).check("sensitivity")
    runner.close()
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["pixel_values"]["reference"] > 0.1
