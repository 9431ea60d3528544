"""A user's file adds to the shipped registry or overrides it, field by field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_hfaccel.core.results import Stage
from pytest_hfaccel.core.spec import Expectation, VersionBound
from pytest_hfaccel.registry import Registry, load_registry

Load = Callable[..., Registry]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)

    def load(*texts: str) -> Registry:
        files = [Path(f"{index}.yaml") for index in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(f"version: 1\n{text}", encoding="utf-8")
        return load_registry(files)

    return load


def test_a_new_model_takes_task_and_dependencies_from_its_class(load: Load) -> None:
    spec = load("models:\n  me/gpt: {architecture: GPT2LMHeadModel, dependencies: [regex]}\n").get("me/gpt")
    assert (spec.task, spec.dependencies, spec.hub_id) == ("text-generation", ("tokenizers", "regex"), "me/gpt")
    assert spec.source == "0.yaml:3"


def test_a_class_that_is_not_registered_says_its_task_by_name(load: Load) -> None:
    spec = load("models:\n  facebook/opt-125m: {architecture: OPTForCausalLM}\n").get("facebook/opt-125m")
    assert (spec.task, spec.dtypes, spec.expect) == ("text-generation", ("fp32",), ())


def test_an_override_replaces_what_it_names_and_keeps_the_rest_and_the_place(load: Load) -> None:
    before, after = load_registry(), load("models: {gpt2: {dtypes: [bf16]}}\n", "models: {gpt2: {revision: main}}\n")
    spec = after.get("gpt2")
    assert (spec.dtypes, spec.revision, spec.parameters) == (("bf16",), "main", before.get("gpt2").parameters)
    assert spec.source == "1.yaml:2"
    assert [s.name for s in after.specs] == [s.name for s in before.specs]


def test_null_takes_a_field_or_a_model_away(load: Load) -> None:
    registry = load("models:\n  facebook/detr-resnet-50: {revision: null}\n  gpt2: null\n")
    assert registry.get("facebook/detr-resnet-50").revision is None
    assert "gpt2" not in registry
    assert "distilgpt2" in registry


def test_what_a_class_says_reaches_its_models(load: Load) -> None:
    registry = load(
        "classes:\n  BertModel:\n    dtypes: [bf16]\n    min_transformers: {version: '5.1', reason: r}\n"
        "    expect: [{stage: load, reason: all}]\n"
        "models:\n  m: {architecture: BertModel, dtypes: [fp16], expect: [{stage: run, reason: own}]}\n"
    )
    shipped, own = registry.get("sentence-transformers/all-MiniLM-L6-v2"), registry.get("m")
    assert shipped.task == "feature-extraction"
    assert (shipped.dtypes, own.dtypes) == (("bf16",), ("fp16",))
    assert own.min_transformers == VersionBound("5.1", "r")
    assert [expected.reason for expected in own.expect] == ["all", "own"]


def test_an_expected_failure_knows_its_line_and_its_check(load: Load) -> None:
    registry = load(
        "models:\n  m:\n    architecture: BertModel\n    expect:\n"
        "    - {device: 'openvino:*', dtype: bf16, weights: tiny, stage: compare, reason: a}\n"
        "    - {stage: run, reason: b}\n"
        "    - {stage: convert, reason: c}\n"
        "    - {stage: run, check: padding_invariance, reason: d}\n"
    )
    expected = registry.get("m").expect
    assert expected[0] == Expectation("openvino:*", "bf16", Stage.COMPARE, "parity", "a", "tiny", "0.yaml:6")
    assert [(entry.device, entry.check, entry.source) for entry in expected[1:]] == [
        ("*", "forward", "0.yaml:7"),
        ("*", "*", "0.yaml:8"),
        ("*", "padding_invariance", "0.yaml:9"),
    ]


def test_a_path_starts_at_the_file_that_names_it(load: Load, tmp_path: Path) -> None:
    spec = load("models:\n  mine: {path: sub/model, architecture: BertModel}\n").get("mine")
    assert (spec.path, spec.hub_id) == (str(tmp_path / "sub" / "model"), "")


def test_valid_contents_are_remembered_by_content(tmp_path: Path) -> None:
    file, cache = tmp_path / "r.yaml", tmp_path / "cache"
    file.write_text("version: 1\nmodels: {m: {architecture: BertModel}}\n", encoding="utf-8")
    first = load_registry([file], cache_dir=cache)
    stamps = set(cache.rglob("*"))
    assert load_registry([file], cache_dir=cache) == first
    assert set(cache.rglob("*")) == stamps
    file.write_text("version: 1\nmodels: {m: {architecture: BertModel, x: 1}}\n", encoding="utf-8")
    with pytest.raises(Exception, match="'x' is not a key here"):
        load_registry([file], cache_dir=cache)
    assert set(cache.rglob("*")) == stamps


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("", encoding="utf-8")
    assert load_registry(cache_dir=blocker).specs
