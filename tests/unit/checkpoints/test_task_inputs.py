"""Inputs made from raw material by the checkpoint's own processors, one recipe per kind of input."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from pytest_hfaccel.checkpoints import Checkpoint, CheckpointStore
from pytest_hfaccel.checkpoints.inputs import RECIPES
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.core.tasks import TASKS, generates, task_of

pytestmark = pytest.mark.slow

MODELS = [
    ("BertForMaskedLM", "fill-mask"),
    ("GPT2LMHeadModel", "text-generation"),
    ("T5ForConditionalGeneration", "text2text-generation"),
    ("DetrForObjectDetection", "object-detection"),
    ("SamModel", "mask-generation"),
    ("CLIPModel", "zero-shot-image-classification"),
    ("XCLIPModel", "zero-shot-video-classification"),
    ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
    ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
    ("ClapModel", "zero-shot-audio-classification"),
    ("LlavaNextForConditionalGeneration", "image-text-to-text"),
    # No entry in the tables.
    ("OPTForQuestionAnswering", "question-answering"),
    ("ElectraForMaskedLM", "fill-mask"),
    ("ConvNextForImageClassification", "image-classification"),
    ("HubertForCTC", "automatic-speech-recognition"),
]

Tiny = Callable[[str, str], Checkpoint]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Makes a tiny checkpoint, once per class."""
    store = CheckpointStore(tmp_path_factory.mktemp("cache"))

    @cache
    def make(architecture: str, task: str) -> Checkpoint:
        spec = ModelSpec(name=architecture, architecture=architecture, task=task)
        return store.prepare(spec, WeightsChoice(Weights.TINY, "for a test"))

    return make


@pytest.fixture(params=MODELS, ids=lambda model: model[0])
def checkpoint(request: pytest.FixtureRequest, tiny: Tiny) -> Checkpoint:
    return tiny(*request.param)


def test_every_task_has_a_recipe_and_every_recipe_a_model_here() -> None:
    assert {task.recipe for task in TASKS.values()} == set(RECIPES) == {TASKS[task].recipe for _, task in MODELS}


def test_the_model_takes_them_and_tells_the_samples_apart(checkpoint: Checkpoint) -> None:
    import torch

    sample = checkpoint.sample()
    model = checkpoint.torch_model("fp32")
    assert set(sample.forward) <= set(inspect.signature(model.forward).parameters)
    output = model(**sample.forward)
    tensors = [value for value in output.values() if isinstance(value, torch.Tensor) and value.shape[0] == sample.batch]
    assert tensors, "no output has a row per sample"
    assert any(not torch.allclose(tensor[0], tensor[1], atol=1e-4) for tensor in tensors if tensor.is_floating_point())


def test_floating_point_inputs_are_single_precision(checkpoint: Checkpoint) -> None:
    import torch

    dtypes = {value.dtype for value in checkpoint.sample().forward.values() if value.is_floating_point()}
    assert dtypes <= {torch.float32}


def test_the_model_generates_from_them_where_its_task_does(checkpoint: Checkpoint) -> None:
    sample = checkpoint.sample()
    assert (sample.generate is not None) == generates(checkpoint.spec)
    if sample.generate is not None:
        tokens = checkpoint.torch_model("fp32").generate(**sample.generate, max_new_tokens=3, do_sample=False)
        assert tokens.shape[0] == sample.batch


def test_padding_lengthens_the_text_alone(checkpoint: Checkpoint) -> None:
    import torch

    sample = checkpoint.sample()
    assert (sample.padded is not None) == task_of(checkpoint.spec).pads
    if sample.padded is None:
        return
    assert set(sample.padded) == set(sample.forward)
    ids, longer = sample.forward["input_ids"], sample.padded["input_ids"]
    assert longer.shape[1] > ids.shape[1]
    assert torch.equal(longer[:, : ids.shape[1]], ids)
    assert not sample.padded["attention_mask"][:, ids.shape[1] :].any()
    checkpoint.torch_model("fp32")(**sample.padded)


def test_they_are_the_same_every_time(checkpoint: Checkpoint) -> None:
    import torch

    again = Checkpoint(
        checkpoint.spec, checkpoint.weights, checkpoint.directory, checkpoint.fingerprint, checkpoint.cache_dir
    )
    first, second = checkpoint.sample().forward, again.sample().forward
    assert checkpoint.sample() is checkpoint.sample()
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_pipeline_takes_them_twice(checkpoint: Checkpoint) -> None:
    from transformers import pipeline

    task, sample = task_of(checkpoint.spec), checkpoint.sample()
    assert (sample.pipeline is not None) == (task.pipeline is not None)
    if sample.pipeline is not None:
        run = pipeline(task.pipeline, model=checkpoint.torch_model("fp32"), **checkpoint.processors())
        results = [repr(run(*sample.pipeline, **sample.pipeline_kwargs)) for _ in range(2)]
        assert results[0] == results[1]


def test_a_masked_model_is_asked_about_a_mask(tiny: Tiny) -> None:
    checkpoint = tiny("BertForMaskedLM", "fill-mask")
    mask = checkpoint.processors()["tokenizer"].mask_token_id
    assert (checkpoint.sample().forward["input_ids"] == mask).sum(dim=1).tolist() == [1, 1]


def test_every_token_a_tiny_model_can_generate_is_visible(tiny: Tiny) -> None:
    checkpoint = tiny("GPT2LMHeadModel", "text-generation")
    assert checkpoint.torch_model("fp32").config.vocab_size == len(checkpoint.processors()["tokenizer"])


def test_a_missing_processor_is_named(tiny: Tiny, tmp_path: Path) -> None:
    source = tiny("BertForMaskedLM", "fill-mask")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source.directory / name).read_bytes())
    bare = Checkpoint(source.spec, source.weights, tmp_path, "", tmp_path)
    with pytest.raises(LoadError, match=r"has no tokenizer, which fill-mask needs"):
        bare.sample()


def test_a_model_type_whose_processor_cannot_be_made_is_named(tiny: Tiny) -> None:
    with pytest.raises(
        LoadError, match=r"processor for model type 'blip' for image-text-to-text[^\0]*checkpoints/processors"
    ):
        tiny("BlipForConditionalGeneration", "image-text-to-text")
