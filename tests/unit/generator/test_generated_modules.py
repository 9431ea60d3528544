"""`hfaccel generate`: a module per family, data that stays data, and nothing outside of the folder."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hfaccel.classify import MODEL_SUBFAMILIES
from pytest_hfaccel.cli import main
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.generator import make_module, slug_of, write_module
from tests.harness import environment

SUBFAMILIES = sorted(subfamily for subfamilies in MODEL_SUBFAMILIES.values() for subfamily in subfamilies)
HARMLESS = ModelSpec("someone/model", "BertForMaskedLM", "fill-mask")

HOSTILE = [
    *("../../etc/passwd", "/etc/passwd", "..", ".", "~/x", "~root/x", "//server/share", "C:\\Windows\\x", "con", "nul"),
    *("a/../../../b", "a\\..\\..\\b", "x/.", "x\x00y", "x\ny", "x\r\nimport os", "x\u2028y", "x\x85y", "\ufeffx", " "),
    *('"', "'", '"""', "'''", '"); import os; os.system("true") #', "'); __import__('os').system('true') #"),
    *(
        'x"""\nimport os\n"""',
        "\\",
        '\\"); import os #',
        "\\N{DIGIT ONE}",
        "{{ 7 * 7 }}",
        "{% include '/etc/passwd' %}",
    ),
    *("{{ ''.__class__.__mro__ }}", "{# #}", "${HOME}", "$(touch x)", "`touch x`", "-rf", "--help", "%s%n", "x" * 5000),
    *("\U0001f600", "\u202egnp.exe", "\udc80", "\u0430dmin/\u043c"),
]


def shape(text: str) -> str:
    """A module without its literals."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def default_model(text: str) -> object:
    return next(
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "default_model"
    )


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_there_are_forty_of_them() -> None:
    assert len(set(HOSTILE)) >= 40


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_stays_a_literal_and_in_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out" / "modules"
    for spec in (replace(HARMLESS, name=name), replace(HARMLESS, path=name)):
        module = make_module(spec, folder)
        assert shape(module.text) == shape(make_module(HARMLESS, folder).text)
        assert default_model(module.text) == name
        assert module.path.parent == folder
        assert module.path.name.isascii()
        write_module(module)
        module.path.unlink()
    assert everything(tmp_path) == ["out", "out/modules"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_id_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) if name.startswith("-") else monkeypatch.context():
        assert main(["generate", name, "--output-dir", "modules"]) == 1
    assert not [path for path in everything(tmp_path) if not path.startswith("cache")]


@pytest.mark.parametrize("name", ['x"""; import os', "{{ 7 * 7 }}", "$(touch x)", "a'b", "\U0001f600"])
def test_a_folder_with_a_hostile_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).mkdir()
    config = {"architectures": ["BertForMaskedLM"], "model_type": 'bert"""'}
    (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["generate", f"./{name}", "--output-dir", "modules"]) == 0
    (path,) = (tmp_path / "modules").iterdir()
    text = path.read_text(encoding="utf-8")
    assert default_model(text) == str(tmp_path / name)
    assert shape(text) == shape(make_module(HARMLESS, tmp_path / "none").text)


def test_a_class_that_is_no_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["Bert\\"); import os #"]}', encoding="utf-8")
    assert main(["generate", ".", "--output-dir", "modules"]) == 1
    assert "is not a class name" in capsys.readouterr().err
    assert everything(tmp_path) == ["config.json"]


def test_a_link_is_not_followed_and_what_is_there_stays(tmp_path: Path) -> None:
    module = make_module(HARMLESS, tmp_path / "modules")
    (tmp_path / "modules").mkdir()
    module.path.symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(ConfigError, match="exists"):
        write_module(module)
    assert not (tmp_path / "elsewhere.py").exists()
    module.path.unlink()
    assert write_module(module)
    assert not write_module(module), "it is there as it would be written"
    module.path.write_text("# edited\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists"):
        write_module(module)


def test_names_of_modules() -> None:
    assert slug_of(ModelSpec("openai/whisper-tiny", "A", "b")) == "openai_whisper_tiny"
    assert slug_of(ModelSpec("x", "A", "b", path="/home/me/My Model (2)")) == "my_model_2"
    assert slug_of(ModelSpec("模型", "A", "b")) == "model"
    assert len(slug_of(ModelSpec("x" * 500, "A", "b"))) == 80


def test_what_is_written_passes_ruff(tmp_path: Path) -> None:
    """For every family and subfamily, with and without each option: by ruff's own rules and by ours."""
    architectures = (
        *(
            "BertForMaskedLM",
            "BertModel",
            "BertForTokenClassification",
            "GPT2LMHeadModel",
            "T5ForConditionalGeneration",
        ),
        *("ViTForImageClassification", "DetrForObjectDetection", "BeitForSemanticSegmentation", "XForDepthEstimation"),
        *("Wav2Vec2ForCTC", "ASTForAudioClassification", "LayoutLMForQuestionAnswering", "XForVideoClassification"),
    )
    number = 0
    for template in (*SUBFAMILIES, "hf_template.py"):
        for architecture in architectures:
            options = ({}, {"device": "cuda:0", "timeout": 60, "requirements": {"min_memory_mb": 12}})[number % 2]
            spec = ModelSpec(f"m/{'x' * (number * 7 % 230)}", architecture, "fill-mask")
            module = make_module(spec, tmp_path, template=template, **options)  # type: ignore[arg-type]
            (tmp_path / f"test_{number}.py").write_text(module.text, encoding="utf-8")
            number += 1
    for rules in (["--isolated"], ["--isolated", "--select", "B,D,E,F,I,N,PT,RET,SIM,UP,W", "--line-length", "120"]):
        # The convention of docstrings; classes of tests are not packages; torch is measured with `len`.
        ignored = ["--ignore", "D100,D203,D213,D104"]
        command = [sys.executable, "-m", "ruff", "check", *rules, *ignored, "--target-version", "py311", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    command = [sys.executable, "-m", "ruff", "format", "--check", "--isolated", "--line-length", "120", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_no_model_is_loaded_to_write_a_test(tmp_path: Path) -> None:
    program = (
        "import sys; from pytest_hfaccel.cli import main; code = main(sys.argv[1:]); "
        "print({'torch', 'transformers', 'safetensors', 'tokenizers'} & sys.modules.keys()); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, "generate", "gpt2", "--debug", "--device", "openvino:cpu"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert "pytest model_classes/test_hf_gpt2.py --hf-device openvino:CPU" in done.stdout
    assert "family: text_generation, causal_lm" in done.stderr
    assert '["--hf-device", "openvino:CPU", *sys.argv[1:]]' in (tmp_path / "model_classes/test_hf_gpt2.py").read_text()


def test_a_class_that_is_tested_already_gets_a_registry_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    assert main(["generate", "bert-base-uncased"]) == 0
    assert main(["generate", "bert-base-uncased"]) == 0
    assert "is there already" in capsys.readouterr().out
    assert main(["generate", "bert-large-uncased"]) == 0
    assert "--hf-model bert-large-uncased" in capsys.readouterr().out
    (tmp_path / "mine").mkdir()
    config = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 96}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["generate", "./mine"]) == 0
    output = capsys.readouterr().out
    assert "test_hf_bert_base_uncased.py tests BertForMaskedLM already; nothing was written" in output
    entry = output.partition(":\n\n")[2]
    assert entry == (
        "  mine:\n    path: ./mine\n    architecture: BertForMaskedLM\n    task: fill-mask\n"
        "    dims:\n      hidden_size: 96\n"
    )
    assert everything(tmp_path / "model_classes") == ["test_hf_bert_base_uncased.py"]


def test_a_template_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.py.j2"
    text = '{% extends "hf_template.py" %}{% block name %}TestOurs{% endblock %}'
    mine.write_text(text, encoding="utf-8")
    assert "class TestOurs(ModelClassTests):" in make_module(HARMLESS, tmp_path, template=str(mine)).text
    for wrong, message in (("{% if %}", "mine.py.j2:1"), ("class {{", "mine.py.j2"), ("class :", "not Python")):
        mine.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
            make_module(HARMLESS, tmp_path, template=str(mine))
    with pytest.raises(ConfigError, match="neither a template nor a file"):
        make_module(HARMLESS, tmp_path, template="no_such")


def test_the_template_in_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "generator.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```jinja\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.j2").write_text(block, encoding="utf-8")
    made = make_module(HARMLESS, tmp_path, template=str(tmp_path / "mine.j2")).text
    assert "class TestOurEncoder(ModelClassTests):" in made
    assert "    def test_our_limit(self, hf_model, hf_inputs):" in made
    assert "test_every_token_has_scores" not in made


def test_a_timeout_and_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    assert main(["generate", "gpt2", "--timeout", "60"]) == 0
    text = (tmp_path / "model_classes" / "test_hf_gpt2.py").read_text(encoding="utf-8")
    assert "pytestmark = pytest.mark.timeout(60)" in text
    for arguments, message in (
        (["gpt2", "--timeout", "0"], "--timeout: 0 is not allowed"),
        (["gpt2", "--device", "tpu"], "'tpu' is not a device"),
        (["bert*"], "names several models"),
    ):
        assert main(["generate", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_clearing_the_cache_leaves_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    for name in ("GPT2LMHeadModel-tiny-1", "GPT2LMHeadModelOther-tiny-1", "BertModel-tiny-1"):
        (tmp_path / "cache" / "checkpoints" / name).mkdir(parents=True)
    assert main(["generate", "gpt2", "--clear-cache"]) == 0
    left = everything(tmp_path / "cache" / "checkpoints")
    assert left == ["BertModel-tiny-1", "GPT2LMHeadModelOther-tiny-1"]
