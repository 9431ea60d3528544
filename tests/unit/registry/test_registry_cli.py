"""`hfaccel registry list | check | add`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints.tables import CLASS_OVERRIDES, OVERRIDES, SPECIAL_INPUTS
from pytest_hfaccel.cli import registry
from pytest_hfaccel.core.errors import CheckpointError, RegistryError
from pytest_hfaccel.registry import load_registry


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def hfaccel(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    registry.add_parser(parser.add_subparsers())
    given = parser.parse_args(["registry", *arguments])
    return int(given.run(given))


def write(directory: Path, text: str) -> str:
    file = directory / "mine.yaml"
    file.write_text(f"version: 1\n{text}", encoding="utf-8")
    return str(file)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert hfaccel("list", "*llama*7b-hf") == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "CLASS", "TASK", "PARAMETERS", "GATED"]
    assert line.split() == ["meta-llama/Llama-2-7b-hf", "LlamaForCausalLM", "text-generation", "6,738.4", "M", "yes"]


def test_list_as_json_with_the_users_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert hfaccel("list", "--json", "--registry", write(tmp_path, "models: {m: {architecture: BertModel}}\n")) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [spec["name"] for spec in listed] == [spec.name for spec in load_registry().specs] + ["m"]
    assert listed[-1]["task"] == "feature-extraction"


@pytest.mark.tables
def test_check_of_the_shipped_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert hfaccel("check") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{len(load_registry().specs)} models checked, 0 problems"
    assert re.fullmatch(r"1\d{3} classes by name, such as opt/OPTForCausalLM; \d+ have no entry", second)


@pytest.mark.tables
def test_check_lists_what_has_no_entry_and_no_checkpoint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    failed = {"name": "a/A", "ok": False, "stage": "build", "error": "too large"}
    good = {"name": "b/B", "ok": True}
    rows.write_text("\n".join(map(json.dumps, [failed, {**failed, "name": "b/B"}, good])), encoding="utf-8")
    assert hfaccel("check", "--classes", "--sweep", str(rows)) == 0
    lines = capsys.readouterr().out.splitlines()
    # A part of CLIP that users can load, and that no auto mapping names.
    assert "no entry: CLIPTextModelWithProjection" in lines
    assert "no entry: CLIPModel" not in lines
    assert [line for line in lines if line.startswith("no tiny")] == ["no tiny checkpoint: a/A: build: too large"]


def test_check_refuses_rows_that_are_none(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"name": "a/A"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"rows.jsonl has no rows of a sweep: 'ok'"):
        hfaccel("check", "--sweep", str(rows))


@pytest.mark.tables
@pytest.mark.parametrize(
    ("table", "name"),
    [(OVERRIDES, "OVERRIDES"), (CLASS_OVERRIDES, "CLASS_OVERRIDES"), (SPECIAL_INPUTS, "SPECIAL_INPUTS")],
)
def test_check_tells_what_names_a_model_type_that_is_gone(
    table: dict[str, Any], name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table, "no_such_type", {})
    assert hfaccel("check") == 1
    assert capsys.readouterr().err == f"checkpoints/tables: {name}: no model type or class 'no_such_type'\n"


def test_check_finds_what_this_machine_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path,
        "models:\n  a: {architecture: BertForMaskedLN, task: fill-mask}\n"
        "  b: {architecture: BertModel, dependencies: [no-such-package]}\n"
        "  c: {architecture: NextYearsModel, task: fill-mask, min_transformers: {version: '99', reason: new}}\n",
    )
    assert hfaccel("check", "mine.yaml") == 1
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("mine.yaml:3: models.a.architecture: transformers 5.")
    assert first.endswith("has no class 'BertForMaskedLN'. Did you mean 'BertForMaskedLM'?")
    assert second == "mine.yaml:4: models.b: needs no-such-package (not installed)"
    assert "note: c needs transformers >= 99 (" in out
    assert out.endswith("3 models checked, 2 problems\n")


def test_check_of_a_file_with_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="'x' is not a key here"):
        hfaccel("check", write(tmp_path, "models: {m: {x: 1}}\n"))


@pytest.mark.slow
def test_add_a_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "my-bert"
    model.mkdir()
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384, "vocab_size": 30522}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    file = tmp_path / "mine.yaml"
    assert hfaccel("add", str(model), "--to", str(file)) == 0
    assert capsys.readouterr().out == f"{file}: added my-bert (BertModel, feature-extraction)\n"
    spec = load_registry([file]).get("my-bert")
    assert (spec.path, spec.dims) == (str(model), {"hidden_size": 384})
