"""What a name of a model means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.naming import ModelFinder, by_size, find_checkpoint, known_checkpoints, size_in
from pytest_hfaccel.registry import load_registry

KNOWN = sorted({checkpoint.name for checkpoint in known_checkpoints().values()})


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelFinder:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return ModelFinder(load_registry(cache_dir=tmp_path))


@pytest.mark.parametrize(
    ("name", "architecture", "parameters", "family"),
    [
        ("bert-base-uncased", "BertForMaskedLM", 109_514_298, "embedding"),
        ("t5-small", "T5ForConditionalGeneration", 60_506_624, "text_generation"),
        ("vit-base-patch16-224", "ViTForImageClassification", 86_567_656, "vision"),
        ("llama-7b", "LlamaForCausalLM", 6_738_415_616, "text_generation"),
        ("Llama-70B", "LlamaForCausalLM", 68_976_648_192, "text_generation"),
        ("meta-llama/Llama-2-70b-hf", "LlamaForCausalLM", 68_976_648_192, "text_generation"),
        ("facebook/opt-1.3b", "OPTForCausalLM", 1_315_758_080, "text_generation"),
        ("bert-tiny", "BertForMaskedLM", 4_416_698, "embedding"),
        ("whisper-large", "WhisperForConditionalGeneration", 1_543_490_560, "audio"),
    ],
)
def test_well_known_names(finder: ModelFinder, name: str, architecture: str, parameters: int, family: str) -> None:
    found = finder.find(name)
    assert (found.architecture, found.parameters, found.family) == (architecture, parameters, family)
    assert not found.is_assumed


def test_a_known_family_of_a_known_size(finder: ModelFinder) -> None:
    found = finder.find("somebody/my-llama-13b-chat")
    assert found.is_assumed
    assert found.dims["hidden_size"] == 5120
    assert "the dimensions of huggyllama/llama-13b" in found.origin


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mistral-24b", "qwen2-32b", "roberta-700m", "opt-175b", "llama-3-20b"])
def test_a_known_family_of_another_size_is_scaled(name: str) -> None:
    from pytest_hfaccel.tracing.torch.fake_model import meta_model

    found = by_size(name)
    assert found is not None
    assert "assumed: depth and width of" in found.origin
    built = sum(parameter.numel() for parameter in meta_model(found.architecture, found.dims).parameters())
    assert built == pytest.approx(size_in(name), rel=0.2)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("llama-7b", 7e9),
        ("facebook/opt-350m", 3.5e8),
        ("opt_1.3b", 1.3e9),
        ("Qwen2.5-0.5B-Instruct", 5e8),
        ("bert-base-uncased", None),
        ("mixtral-8x7b", None),
        ("7b/model", None),
    ],
)
def test_the_size_in_a_name(name: str, size: float | None) -> None:
    assert size_in(name) == size


def test_a_family_is_a_word_of_the_name() -> None:
    thirty_four = by_size("llama-34b")
    assert thirty_four is not None
    assert "llama-30b" in thirty_four.origin  # and not LLaMA 3
    assert by_size("robertax-1b") is None
    assert by_size("nothing-known-1b") is None


def test_a_class_whose_dimensions_are_assumed(finder: ModelFinder) -> None:
    unknown = finder.find("my-fine-clap")
    assert (unknown.architecture, unknown.dimensions) == ("", "unknown")
    assert "ClapModel's default config would be used with --assume-default" in unknown.origin
    found = ModelFinder(finder._registry, assume_default=True).find("my-fine-clap")
    assert (found.architecture, found.dimensions) == ("ClapModel", "assumed")
    assert "default config, assumed because" in found.origin


def test_nothing_is_known(finder: ModelFinder) -> None:
    found = finder.find("foo-bar")
    assert (found.architecture, found.family) == ("", "")
    assert found.origin.startswith("dimensions not known: foo-bar")
    assert finder.find("foo-bar", "vision").family == "vision"


def test_a_directory_is_read(finder: ModelFinder, tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "config.json").write_text(
        '{"architectures": ["BertForMaskedLM"], "hidden_size": 96}', encoding="utf-8"
    )
    found = finder.find(str(directory))
    assert (found.architecture, found.dims["hidden_size"], found.is_assumed) == ("BertForMaskedLM", 96, False)


def test_the_name_rows_have(finder: ModelFinder) -> None:
    assert finder.find("vit-base-patch16-224").canonical == "google/vit-base-patch16-224"


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [("", None, "'' is no name"), (7, None, "7 is no name"), ("gpt2", "texts", "not a family")],
)
def test_mistakes(finder: ModelFinder, name: str, family: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        finder.find(name, family)


def test_names_are_told_apart() -> None:
    assert find_checkpoint("BERT-Tiny") == find_checkpoint("google/bert_uncased_L-2_H-128_A-2")
    assert find_checkpoint("bert-huge") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_stated_parameters_are_those_that_are_built(name: str) -> None:
    from pytest_hfaccel.tracing.torch.fake_model import meta_model

    known = find_checkpoint(name)
    assert known is not None
    built = sum(parameter.numel() for parameter in meta_model(known.architecture, known.dims).parameters())
    assert built == known.parameters
