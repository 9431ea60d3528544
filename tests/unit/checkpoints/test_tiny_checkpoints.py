"""Tiny and random checkpoints: built, reproducible, loadable the way users load theirs."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
from pytest_hfaccel.checkpoints.build import build_errors
from pytest_hfaccel.core.errors import CheckpointError, ConfigError, LoadError, line_of_transformers
from pytest_hfaccel.core.files import MANIFEST
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

pytestmark = pytest.mark.slow

Prepare = Callable[..., Checkpoint]

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 2000,
}


def bert(**dims: Any) -> ModelSpec:
    return ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask", dims=dims)


def prepare(cache: Path, spec: ModelSpec, kind: Weights = Weights.TINY) -> Checkpoint:
    return CheckpointStore(cache).prepare(spec, WeightsChoice(kind, "for a test"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tiny(cache: Path) -> Checkpoint:
    """A tiny BERT."""
    return prepare(cache, bert())


def test_it_is_small_and_complete(tiny: Checkpoint) -> None:
    assert 10_000 < tiny.parameters < 1_000_000
    assert tiny.loading_info() == {"missing_keys": [], "unexpected_keys": [], "other_heads": []}


@pytest.mark.parametrize("dtype", ["fp64", "fp32", "bf16", "fp16"])
def test_it_loads_at_every_precision(dtype: str, tiny: Checkpoint) -> None:
    import torch

    model = tiny.torch_model(dtype)
    expected = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_unknown_precision_is_refused(tiny: Checkpoint) -> None:
    with pytest.raises(LoadError, match=r"'int8' is not a dtype of torch models\. Allowed: fp64, fp32, bf16, fp16"):
        tiny.torch_model("int8")


def test_loading_prints_nothing(tiny: Checkpoint, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.torch_model("fp32")
    assert capfd.readouterr() == ("", "")


def test_no_parameter_is_left_as_it_was_initialised(tiny: Checkpoint) -> None:
    """Zero biases and normalisations that are all ones hide an exporter's mistakes."""
    for name, parameter in tiny.torch_model("fp32").named_parameters():
        assert parameter.unique().numel() > parameter.numel() // 2, name


def test_the_same_recipe_gives_the_same_bytes(tiny: Checkpoint, tmp_path: Path) -> None:
    again = prepare(tmp_path, bert())
    assert again.fingerprint == tiny.fingerprint
    files = sorted(path.name for path in tiny.directory.iterdir())
    assert files == sorted(path.name for path in again.directory.iterdir())
    for name in set(files) - {MANIFEST}:  # it has times of change
        assert (again.directory / name).read_bytes() == (tiny.directory / name).read_bytes(), name


def test_a_new_recipe_that_builds_the_same_keeps_the_fingerprint(
    tiny: Checkpoint, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what backends derived from it, which takes longer than building it, holds."""
    from pytest_hfaccel.checkpoints import fingerprint

    monkeypatch.setattr(fingerprint, "_recipe", lambda: "new")
    again = prepare(cache, bert())
    assert again.directory != tiny.directory
    assert again.fingerprint == tiny.fingerprint


def test_building_leaves_the_generator_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    prepare(tmp_path, bert())
    assert torch.equal(torch.rand(3), expected)


def test_another_structure_is_another_checkpoint(tiny: Checkpoint, cache: Path) -> None:
    other = prepare(cache, bert(type_vocab_size=1))
    assert other.fingerprint != tiny.fingerprint
    assert other.directory != tiny.directory


def test_models_that_shrink_to_the_same_share_a_checkpoint(tiny: Checkpoint, cache: Path) -> None:
    assert prepare(cache, bert(hidden_size=1024, num_attention_heads=16)).directory == tiny.directory


def test_random_weights_have_the_real_dimensions(cache: Path) -> None:
    made = prepare(cache, bert(**SMALL), Weights.RANDOM)
    embedding = made.torch_model("fp32").get_input_embeddings().weight
    assert tuple(embedding.shape) == (2000, 32)
    assert len(made.processors()["tokenizer"]) < 2000, "the real vocabulary is larger than the tokenizer trained here"


def test_a_model_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 1000, 1000))
    with pytest.raises(CheckpointError, match=r"the checkpoint needs [\d.]+ KiB, 1000 B are free.\nFree space"):
        prepare(tmp_path, bert(**SMALL), Weights.RANDOM)
    assert [path.suffix for path in (tmp_path / "checkpoints").iterdir()] == [".lock"]


def test_dims_no_model_can_have_are_a_load_error(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"a BertForMaskedLM cannot be built: .*not a multiple") as raised:
        prepare(tmp_path, bert(hidden_size=66), Weights.RANDOM)
    assert raised.value.cause == Cause.TINY_CHECKPOINT


def test_an_attribute_that_an_object_of_transformers_does_not_have_is_transformers_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertConfig, BertForMaskedLM, BertModel
    from transformers.utils import ModelOutput

    right = BertModel.forward

    def without_attributes(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ModelOutput({"last_hidden_state": right(self, *args, **kwargs)[0]})

    monkeypatch.setattr(BertModel, "forward", without_attributes)
    model = BertForMaskedLM(BertConfig(**SMALL))
    lacking = pytest.raises(LoadError, match="'ModelOutput' object has no attribute 'hidden_states'")
    with lacking as raised, build_errors(bert(), tmp_path):
        model(torch.ones(1, 3, dtype=torch.long))
    assert raised.value.cause == Cause.TRANSFORMERS
    assert line_of_transformers(raised.value).startswith("transformers/models/bert/modeling_bert.py:")
    assert line_of_transformers(raised.value).endswith(": hidden_states=outputs.hidden_states,")


def test_code_of_a_repository_needs_consent(tmp_path: Path) -> None:
    spec = ModelSpec("own", "OwnModel", "fill-mask", hub_id="a/own", requires_remote_code=True)
    with pytest.raises(ConfigError, match=r"(?s)own needs the code of its repository.*--hf-trust-remote-code"):
        prepare(tmp_path, spec, Weights.PRETRAINED)


def test_damaged_weights_are_named(tiny: Checkpoint, tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    shutil.copytree(tiny.directory, directory)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    spec = ModelSpec(str(directory), "BertForMaskedLM", "fill-mask", path=str(directory))
    store = CheckpointStore(tmp_path)
    checkpoint = store.prepare(spec, store.choose(spec, "auto", named=True))
    with pytest.raises(
        CheckpointError, match=r"mine/model\.safetensors is not a sound safetensors file \(5000 bytes\)"
    ):
        checkpoint.torch_model("fp32")
