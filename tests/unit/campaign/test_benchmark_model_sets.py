"""The sets of models, and the files that list custom ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.campaign.model_sets import KEY, SMALL, models_of_set
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.registry import load_registry
from pytest_hfaccel.registry.installed import read_modules


def test_the_sets_are_registered_and_small_means_small() -> None:
    registry = load_registry()
    assert [spec.name for spec in models_of_set("key", registry)] == list(KEY)
    small = models_of_set("small", registry)
    assert [spec.name for spec in small] == list(SMALL)
    assert all((spec.parameters or 10**9) < 100_000_000 for spec in small)


def test_the_key_set_has_a_model_of_every_model_class_module() -> None:
    from fnmatch import fnmatchcase

    names = [spec.architecture for spec in models_of_set("key", load_registry())]
    modules = [found for found in read_modules(Path(__file__).parents[3] / "model_classes") if not found.fallback]
    assert len(modules) > 10
    for found in modules:
        assert any(fnmatchcase(name, pattern) for name in names for pattern in found.patterns), found.module


def test_a_part_of_a_set() -> None:
    found = models_of_set("key", load_registry(), only=["BERT*", "whisper-tiny"])
    assert [spec.name for spec in found] == ["bert-base-uncased", "openai/whisper-tiny"]
    with pytest.raises(ConfigError, match=r"llama\*: not in the set 'small'"):
        models_of_set("small", load_registry(), only=["llama*"])


@pytest.mark.parametrize("content", [["gpt2", "t5-small"], {"a": "gpt2", "b": {"name": "t5-small", "family": "x"}}])
def test_a_file_of_models(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps(content))
    found = models_of_set("custom", load_registry(), custom=[str(file), "gpt2"])
    assert [spec.name for spec in found] == ["gpt2", "t5-small"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": {"family": "x"}}', '"gpt2"', "3"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "models.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"--custom-models .*models\.json: "):
        models_of_set("custom", load_registry(), custom=[str(file)])


def test_custom_models_and_the_set_custom_go_together() -> None:
    with pytest.raises(ConfigError, match="name the models with --custom-models"):
        models_of_set("custom", load_registry())
    with pytest.raises(ConfigError, match="Add `--models-set custom`"):
        models_of_set("small", load_registry(), custom=["gpt2"])
