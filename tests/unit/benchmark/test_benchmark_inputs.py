"""Inputs of a point: the shapes the tracing layer computes, ids without a special meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hfaccel.benchmark.inputs import is_vision_language, make_inputs, repeated, safe_ids, shapes_of
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice

if TYPE_CHECKING:
    from pytest_hfaccel.checkpoints import Checkpoint

BERT = ModelSpec("bert", "BertForMaskedLM", "fill-mask")
GPT2 = ModelSpec("gpt2", "GPT2LMHeadModel", "text-generation")
T5 = ModelSpec("t5", "T5ForConditionalGeneration", "text2text-generation")
VIT = ModelSpec("vit", "ViTForImageClassification", "image-classification")
LLAVA = ModelSpec("llava", "LlavaForConditionalGeneration", "image-text-to-text")


def tiny(spec: ModelSpec, cache: Path) -> Checkpoint:
    from pytest_hfaccel.checkpoints import CheckpointStore

    return CheckpointStore(cache).prepare(spec, WeightsChoice(Weights.TINY, "test"))


def test_safe_ids_leave_out_the_ends_and_whatever_the_config_names() -> None:
    config = {
        "vocab_size": 16,
        "eos_token_id": 5,
        "text_config": {"vocab_size": 1000, "image_token_index": 7},
        "flag_token_id": True,
    }
    assert safe_ids(config) == [4, 6, 8, 9, 10, 11]
    assert safe_ids({"image_size": 224}) == []


@pytest.mark.slow
def test_samples_are_repeated_in_turn() -> None:
    import torch

    inputs = {"ids": torch.tensor([[1], [2]]), "crops": torch.arange(4), "scalar": torch.tensor(7)}
    found = repeated(inputs, samples=2, batch=3)
    assert found["ids"].tolist() == [[1], [2], [1]]
    assert found["crops"].tolist() == [0, 1, 2, 3, 0, 1]
    assert found["scalar"].item() == 7


@pytest.mark.slow
def test_shapes_are_those_of_the_trace(shared_cache: Path) -> None:
    for spec, length in ((BERT, 24), (GPT2, 24), (T5, 24), (VIT, 0)):
        checkpoint = tiny(spec, shared_cache)
        model_class = checkpoint.model_class()
        config = model_class.config_class.from_pretrained(checkpoint.directory)
        found = make_inputs(checkpoint, 3, length)
        traced = shapes_of(model_class, config, 3, length)
        assert {name: tuple(tensor.shape) for name, tensor in found.forward.items()} == {
            name: shape.shape for name, shape in traced.items()
        }
        assert (found.batch, found.length) == (3, length)


@pytest.mark.slow
def test_the_same_inputs_in_every_process_without_special_ids(shared_cache: Path) -> None:
    checkpoint = tiny(BERT, shared_cache)
    one, other = (make_inputs(checkpoint, 2, 16).forward for _ in range(2))
    assert all(bool((one[name] == other[name]).all()) for name in one)
    config = checkpoint.model_class().config_class.from_pretrained(checkpoint.directory)
    assert set(one["input_ids"].flatten().tolist()) <= set(safe_ids(config.to_dict()))
    assert bool((one["attention_mask"] == 1).all())


@pytest.mark.slow
def test_further_inputs_of_the_sample_are_made_too(shared_cache: Path) -> None:
    checkpoint = tiny(BERT, shared_cache)
    sample = checkpoint.sample().forward
    assert make_inputs(checkpoint, 1, 16, like=sample).forward.keys() == sample.keys()


@pytest.mark.slow
def test_what_is_generated_from(shared_cache: Path) -> None:
    decoder = make_inputs(tiny(GPT2, shared_cache), 2, 16)
    assert decoder.generate is not None
    assert decoder.generate.keys() == decoder.forward.keys()
    encoder_decoder = make_inputs(tiny(T5, shared_cache), 2, 16)
    assert encoder_decoder.generate is not None
    assert encoder_decoder.forward.keys() - encoder_decoder.generate.keys() == {"decoder_input_ids"}
    assert make_inputs(tiny(VIT, shared_cache), 2, 0).generate is None


@pytest.mark.slow
def test_no_more_tokens_than_positions(shared_cache: Path) -> None:
    assert make_inputs(tiny(BERT, shared_cache), 1, 100_000).length == 128


@pytest.mark.slow
def test_text_needs_a_length(shared_cache: Path) -> None:
    with pytest.raises(ConfigError, match="a sequence length of at least 1 is needed"):
        make_inputs(tiny(BERT, shared_cache), 1, 0)


@pytest.mark.slow
def test_a_vision_language_model_takes_its_own_sample(shared_cache: Path) -> None:
    checkpoint = tiny(LLAVA, shared_cache)
    assert is_vision_language(checkpoint.model_class())
    found = make_inputs(checkpoint, 3, 999)
    assert found.source == "the checkpoint's sample inputs, repeated"
    assert all(tensor.shape[0] == 3 for tensor in found.forward.values())
    assert 0 < found.length < found.forward["input_ids"].shape[1], "image tokens are not counted"
