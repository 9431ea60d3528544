"""The model of a reference comes from the checkpoint by a way of its own, in fp64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
from pytest_hfaccel.checkpoints.checkpoint import ReferenceSource
from pytest_hfaccel.core.spec import Weights, WeightsChoice
from pytest_hfaccel.registry.auto_classes import match_pairs

pytestmark = pytest.mark.slow


def checkpoint_of(pair: str, cache: Path) -> Checkpoint:
    return CheckpointStore(cache).prepare(match_pairs(pair)[0], WeightsChoice(Weights.TINY, "for a test"))


def outputs_of(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    import torch

    from pytest_hfaccel.backends.base import flatten_outputs

    cast = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    with torch.no_grad():
        return flatten_outputs(model(**cast))


@pytest.mark.parametrize(
    "pair", ["bert/BertForMaskedLM", "t5/T5ForConditionalGeneration", "clip/CLIPModel", "mixtral/MixtralForCausalLM"]
)
def test_it_is_in_fp64_throughout_and_computes_the_same(pair: str, tmp_path: Path) -> None:
    import torch

    checkpoint = checkpoint_of(pair, tmp_path)
    exact, model = ReferenceSource(checkpoint).torch_model("fp64"), checkpoint.torch_model("fp32")
    tensors = [*exact.parameters(), *exact.buffers()]
    assert {one.dtype for one in tensors if one.is_floating_point()} == {torch.float64}
    assert not exact.training
    inputs = checkpoint.sample().forward
    got, want = outputs_of(model, inputs), outputs_of(exact, inputs)
    assert got.keys() == want.keys()
    for name, leaf in want.items():
        assert torch.allclose(got[name].to(leaf.dtype), leaf, rtol=1e-4, atol=1e-5), name


def test_weights_that_the_checkpoint_lacks_are_those_of_the_model(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    lacking = "bert.encoder.layer.0.output.dense.weight"
    checkpoint = checkpoint_of("bert/BertForMaskedLM", tmp_path)
    file = checkpoint.directory / "model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if name != lacking}, file, {"format": "pt"})
    exact, model = ReferenceSource(checkpoint).torch_model("fp64"), checkpoint.torch_model("fp32")
    assert checkpoint.loading_info()["missing_keys"] == [lacking]
    assert torch.equal(exact.get_parameter(lacking), model.get_parameter(lacking).double())
    half = checkpoint.torch_model("bf16").get_parameter(lacking)
    assert torch.equal(half, model.get_parameter(lacking).bfloat16())


def test_what_a_forward_pass_changes_in_a_layer_is_no_difference_from_the_files(tmp_path: Path) -> None:
    import torch

    checkpoint = checkpoint_of("rwkv/RwkvForCausalLM", tmp_path)
    model = checkpoint.torch_model("fp32")
    before = model.rwkv.layers_are_rescaled
    with torch.no_grad():
        model(**checkpoint.sample().forward)
    assert model.rwkv.layers_are_rescaled != before, "RWKV no longer keeps this: the test needs another class"
    assert checkpoint.weight_problems(model) == []
