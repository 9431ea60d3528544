"""`hfaccel init`: what it finds out, what it writes, and that it leaves alone what is there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.project.new_project import FIRST_MODEL, create_project, find_models
from pytest_hfaccel.registry import load_registry

SOURCE = """
from transformers import AutoModel, pipeline

PLACE = "somewhere"
model = AutoModel.from_pretrained("gpt2", revision="main")
pipe = pipeline("fill-mask", model="distilbert-base-uncased")
other = AutoModel.from_pretrained(PLACE)
"""
BERT = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 64}


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def content(project: Path) -> dict[str, bytes]:
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def checkpoint(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")


def test_an_empty_folder(project: Path) -> None:
    steps = list(create_project(project))
    assert {step.what for step in steps} == {"written"}
    assert set(content(project)) == {
        "registry.yaml",
        "pytest.ini",
        "model_classes/test_hf_bert_base_uncased.py",
        ".github/workflows/models.yml",
    }
    assert FIRST_MODEL in (project / "model_classes/test_hf_bert_base_uncased.py").read_text(encoding="utf-8")


def test_doing_it_again_changes_nothing(project: Path) -> None:
    (project / "app.py").write_text(SOURCE, encoding="utf-8")
    list(create_project(project))
    before = content(project)
    assert {step.what for step in create_project(project)} == {"left alone"}
    assert content(project) == before


def test_what_is_there_is_left_alone(project: Path) -> None:
    files = {
        "registry.yaml": "version: 1\n",
        "pyproject.toml": '[tool.pytest.ini_options]\nhf_registry = "registry.yaml"\n',
        ".github/workflows/models.yml": "name: mine\n",
        "tests/test_hf_bert_base_uncased.py": "# mine\n",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    steps = [step for step in create_project(project) if step.what != "left alone"]
    assert not steps
    assert content(project) == {name: text.encode() for name, text in files.items()}


def test_models_are_found_in_sources_that_are_not_run(project: Path) -> None:
    (project / "app.py").write_text(SOURCE + "raise SystemExit(1)\n", encoding="utf-8")
    (project / "broken.py").write_text("def (:\n", encoding="utf-8")
    for folder in (".venv", "node_modules"):
        (project / folder).mkdir()
        (project / folder / "app.py").write_text('X.from_pretrained("t5-small")\n', encoding="utf-8")
    checkpoint(project / "models" / "mine")
    found = find_models(project)
    assert found == {
        "gpt2": "app.py:5",
        "distilbert-base-uncased": "app.py:6",
        "models/mine": "models/mine/config.json",
    }
    steps = [str(step) for step in create_project(project)]
    assert "written     model_classes/test_hf_gpt2.py: tests GPT2LMHeadModel, with gpt2" in steps


def test_a_checkpoint_gets_a_relative_entry_and_its_module_names_it(project: Path) -> None:
    checkpoint(project / "models" / "mine")
    list(create_project(project))
    entry = yaml.safe_load((project / "registry.yaml").read_text(encoding="utf-8"))["models"]["mine"]
    assert entry["path"] == "./models/mine"
    assert load_registry([project / "registry.yaml"]).get("mine").dims == {"hidden_size": 64}
    assert 'default_model = "mine"' in (project / "model_classes/test_hf_mine.py").read_text(encoding="utf-8")


def test_a_model_that_cannot_be_resolved_is_skipped_unless_it_was_named(project: Path) -> None:
    (project / "app.py").write_text('X.from_pretrained("someone/private")\n', encoding="utf-8")
    steps = list(create_project(project))
    assert any(step.what == "skipped" and step.note.startswith("app.py:1; ") for step in steps)
    with pytest.raises(ConfigError, match="there is no such directory"):
        list(create_project(project, ["./nowhere"]))


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/me/x.git", ".github/workflows/models.yml"),
        ("git@gitlab.example.org:me/x.git", ".gitlab-ci.yml"),
        ("https://example.org/x.git", None),
    ],
)
def test_the_ci_system_is_found_out(project: Path, remote: str, expected: str | None) -> None:
    (project / ".git").mkdir()
    (project / ".git/config").write_text(f'[remote "origin"]\n\turl = {remote}\n', encoding="utf-8")
    (project / ".git/HEAD").write_text("ref: refs/heads/trunk\n", encoding="utf-8")
    list(create_project(project))
    written = [name for name in content(project) if name.endswith(".yml")]
    assert written == ([expected] if expected else [])
    assert b"reports/\n" in content(project)[".gitignore"]
    if expected:
        assert yaml.safe_load((project / expected).read_text(encoding="utf-8"))
        assert ('branches: ["trunk"]' in (project / expected).read_text(encoding="utf-8")) == ("github" in expected)


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="check-jsonschema is not installed")
def test_the_workflow_follows_githubs_schema(project: Path) -> None:
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n", encoding="utf-8")
    list(create_project(project))
    path = project / ".github/workflows/models.yml"
    assert "pip install -e ." in path.read_text(encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_branch_that_is_no_plain_name_gets_nowhere(project: Path) -> None:
    (project / ".git").mkdir()
    (project / ".git/HEAD").write_text('ref: refs/heads/a"]\n  x: [1\n', encoding="utf-8")
    list(create_project(project, ci="github"))
    workflow = yaml.safe_load((project / ".github/workflows/models.yml").read_text(encoding="utf-8"))
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML 1.1 reads `on` as true


def test_the_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(project), "--model", "gpt2", "--ci", "none"]) == 0
    assert "written     model_classes/test_hf_gpt2.py" in capsys.readouterr().out
    assert main(["init", str(project), "--model", "*bert*", "--ci", "none"]) == 1
    assert "names several models" in capsys.readouterr().err
