"""The plain JSON form of a registry file: hub ids, and what each needs besides what its class needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import RegistryError
from pytest_hfaccel.registry import Registry, load_registry, resolve_model

PLAN = """{
\t"meta-llama/Llama-2-7b-hf": {
\t\t"additional_deps": ["bitsandbytes>=0.39.0"],
\t\t"requires_remote_code": true
\t},
\t"org/opt": {"additional_deps": ["no-such-package"], "dtypes": ["bf16"], "requires_remote_code": true}
}
"""


def load(directory: Path, text: str) -> Registry:
    file = directory / "models.json"
    file.write_text(text, encoding="utf-8")
    return load_registry([file], cache_dir=directory / "cache")


def test_it_adds_to_what_is_registered(tmp_path: Path) -> None:
    before, after = (
        load_registry().get("meta-llama/Llama-2-7b-hf"),
        load(tmp_path, PLAN).get("meta-llama/Llama-2-7b-hf"),
    )
    assert after.dependencies == (*before.dependencies, "bitsandbytes>=0.39.0")
    assert after.requires_remote_code
    assert after.remote_code_registered
    assert (after.architecture, after.task, after.parameters) == (before.architecture, before.task, before.parameters)
    assert after.source.endswith("models.json:2")


def test_the_class_of_an_unregistered_model_comes_from_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load(tmp_path, PLAN)
    assert "org/opt" not in registry
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architectures": ["OPTForCausalLM"], "vocab_size": 9}), encoding="utf-8")
    monkeypatch.setattr("pytest_hfaccel.registry.resolution.fetch_config", lambda _: (config, "hub"))
    (spec,) = resolve_model("org/opt", registry)
    assert (spec.architecture, spec.dependencies, spec.dtypes) == ("OPTForCausalLM", ("no-such-package",), ("bf16",))
    assert spec.source.endswith("models.json:6")
    assert not spec.requires_remote_code, "its config names no code"
    config.write_text(json.dumps({"architectures": ["MyForCausalLM"], "auto_map": {"AutoModel": "m.MyForCausalLM"}}))
    (spec,) = resolve_model("org/opt", registry)
    assert spec.may_run_its_code(("registered",))


def test_its_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    text = '{\n  "a/b": {\n    "aditional_deps": ["x"],\n    "additional_deps": ["x ~ y"]\n  },\n  "c d": {}\n}\n'
    with pytest.raises(RegistryError) as caught:
        load(tmp_path, text)
    first, second, third = caught.value.problems
    assert "models.json:3: models.a/b.aditional_deps: 'aditional_deps' is not a key here." in first
    assert "Did you mean 'additional_deps'?" in first
    assert "models.json:4: models.a/b.additional_deps[0]: 'x ~ y' is not a requirement" in second
    assert "models.json:6: models.c d: 'c d' is not a hub id" in third


def test_a_file_of_the_full_format_still_needs_its_version(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="version: is missing"):
        load(tmp_path, '{"models": {"a/b": {"architecture": "BertModel"}}}')
