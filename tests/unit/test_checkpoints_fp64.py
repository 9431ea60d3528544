"""The fp64 model that is a copy is the one that would be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.checkpoints.fp64 import doubled
from pytest_hfaccel.registry.every import match_pairs
from pytest_hfaccel.spec import Weights, WeightsChoice

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "pair", ["bert/BertForMaskedLM", "t5/T5ForConditionalGeneration", "clip/CLIPModel", "mixtral/MixtralForCausalLM"]
)
def test_a_copy_in_fp64_gives_what_the_loaded_one_gives(pair: str, tmp_path: Path) -> None:
    import torch

    from pytest_hfaccel.backends.outputs import flatten_outputs

    checkpoint = CheckpointStore(tmp_path).prepare(match_pairs(pair)[0], WeightsChoice(Weights.TINY, "for a test"))
    model = checkpoint.torch_model("fp32")
    copy, loaded = doubled(model), checkpoint.torch_model("fp64")
    inputs = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.sample().forward.items()
    }
    with torch.no_grad():
        got, want = (flatten_outputs(one(**inputs)) for one in (copy, loaded))
    assert got.keys() == want.keys()
    for name, leaf in want.items():
        assert leaf.dtype == got[name].dtype
        assert torch.equal(got[name], leaf), name
    configs = [one.config for one in loaded.modules() if hasattr(one, "config")]
    assert [one.config.dtype for one in copy.modules() if hasattr(one, "config")] == [one.dtype for one in configs]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32
