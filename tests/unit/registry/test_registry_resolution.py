"""What `--hf-model` means: a registered name, a wildcard, a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import CheckpointError, ConfigError
from pytest_hfaccel.registry import Registry, load_registry, resolve_model

MINILM = {
    "_name_or_path": "nreimers/MiniLM-L6-H384-uncased",
    "architectures": ["BertModel"],
    "hidden_size": 384,
    "model_type": "bert",
    "num_hidden_layers": 6,
    "transformers_version": "4.8.2",
    "vocab_size": 30522,
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def write(directory: Path, config: object) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return str(directory)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gpt2", ["gpt2"]),
        ("whisper-tiny", ["openai/whisper-tiny"]),
        ("GPT2", ["gpt2"]),
        ("openai/*whisper*", ["openai/whisper-tiny", "openai/whisper-base"]),
        ("t5-[bl]*", ["t5-base", "t5-large"]),
    ],
)
def test_registered_names_and_wildcards(registry: Registry, name: str, found: list[str]) -> None:
    assert [spec.name for spec in resolve_model(name, registry)] == found


def test_a_wildcard_that_matches_nothing(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"'gtp\*' matches no registered model.\nRegistered: bert-base-uncased, "):
        resolve_model("gtp*", registry)


def test_a_sentence_transformers_directory(registry: Registry, tmp_path: Path) -> None:
    name = write(tmp_path / "mini-lm", MINILM)
    (spec,) = resolve_model(name, registry)
    assert (spec.name, spec.path, spec.hub_id, spec.slug) == (name, name, "", "mini-lm")
    assert (spec.architecture, spec.task) == ("BertModel", "feature-extraction")
    assert spec.dims == {"hidden_size": 384, "num_hidden_layers": 6, "vocab_size": 30522}
    assert spec.dependencies == ("tokenizers",)
    assert spec.source == str(tmp_path / "mini-lm" / "config.json")
    assert not spec.requires_remote_code


def test_a_relative_directory(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "model", MINILM)
    monkeypatch.chdir(tmp_path)
    for name in ("model", "./model"):
        (spec,) = resolve_model(name, registry)
        assert (spec.name, spec.path) == (name, str(tmp_path / "model"))


def test_a_registered_name_comes_before_a_directory(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "gpt2", MINILM)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("gpt2", registry)[0].architecture == "GPT2LMHeadModel"
    assert resolve_model("./gpt2", registry)[0].architecture == "BertModel"


def test_a_directory_with_a_wildcard_character_in_its_name(registry: Registry, tmp_path: Path) -> None:
    assert resolve_model(write(tmp_path / "run[1]", MINILM), registry)[0].slug == "run--1"


def test_a_model_that_brings_its_own_code_is_marked(registry: Registry, tmp_path: Path) -> None:
    config = {"architectures": ["MyForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling.MyForCausalLM"}}
    (spec,) = resolve_model(write(tmp_path / "mine", config), registry)
    assert spec.requires_remote_code
    assert spec.dims == {}


def test_a_class_of_the_users_registry_gives_the_task(tmp_path: Path) -> None:
    name = write(tmp_path / "odd", {"architectures": ["OddModel"]})
    with pytest.raises(ConfigError) as caught:
        resolve_model(name, load_registry())
    assert "the task is not known for OddModel" in str(caught.value)
    advice = str(caught.value.hint)
    assert "version: 1\nclasses:\n  OddModel:\n    task: <one of fill-mask, " in advice
    file = tmp_path / "r.yaml"
    file.write_text(advice[advice.index("version: 1") : advice.index("<one of")] + "fill-mask\n", encoding="utf-8")
    assert resolve_model(name, load_registry([file]))[0].task == "fill-mask"


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_type": "bert"}, ConfigError, r"names no architecture class \(`architectures`\)"),
        ({"architectures": []}, ConfigError, "names no architecture class"),
        ({"architectures": "BertModel"}, ConfigError, "names no architecture class"),
        ({"architectures": ["__import__('os')"]}, ConfigError, "which is not a class name"),
        ("{", CheckpointError, "config.json is not JSON: "),
        ("[" * 100_000, CheckpointError, "config.json is not JSON: "),
        ([1], CheckpointError, "config.json is not a JSON object"),
    ],
)
def test_a_directory_that_does_not_say_what_it_is(
    registry: Registry, tmp_path: Path, config: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve_model(write(tmp_path / "model", config), registry)


def test_a_directory_without_config(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config.json.*\nName the directory that `save_pretrained`"):
        resolve_model(str(tmp_path), registry)


def test_a_directory_that_is_not_there(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="there is no such directory"):
        resolve_model("./nowhere", registry)


def test_a_name_that_can_be_no_hub_id(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="neither a registered model nor a directory, and cannot be a hub id"):
        resolve_model("a/b/c", registry)
