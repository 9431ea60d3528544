"""A model class called from Python and run as a script, while pytest collects the very same class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel import ModelClassTests, RunConfig, main
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from tests.harness import Project, environment, run_python


class BertModels(ModelClassTests):
    """As a module writes it, under a name that pytest leaves alone here."""

    architectures = ("Bert*", "DistilBert*")
    default_model = "bert-base-uncased"


def make(model_id: str | None = None) -> Any:
    """Return an instance; type checkers know a check by the signature that pytest calls, without a device."""
    return BertModels(model_id)


@pytest.fixture(autouse=True)
def _environment(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(shared_cache).items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))


def test_an_instance_knows_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BertModels().model_id == "bert-base-uncased"
    bert = BertModels("distilbert-base-uncased")
    assert (bert.model_id, bert.task, bert.class_name) == (
        "distilbert-base-uncased",
        "fill-mask",
        "DistilBertForMaskedLM",
    )
    assert bert.dependencies == ["tokenizers"]
    registry = tmp_path / "deps.json"
    registry.write_text('{"distilbert-base-uncased": {"additional_deps": ["sentencepiece"]}}', encoding="utf-8")
    monkeypatch.setenv("HFACCEL_REGISTRY", str(registry))
    assert bert.dependencies == ["tokenizers", "sentencepiece"]


def test_a_check_called_with_a_device_returns_its_outcome() -> None:
    bert = make("bert-base-uncased")
    for found in (bert.test_placement("fake:0"), bert.test_placement(hardware="fake:0")):
        assert found["placement"]["status"] == "passed"
    assert bert.test_generation("fake:0")["generation"]["status"] == "skipped"
    assert bert.test_forward("cuda")["forward"]["status"] in ("unavailable", "passed")
    with pytest.raises(ConfigError, match="'tpu' is not a device"):
        bert.test_forward("tpu")


def test_a_missing_dependency_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = tmp_path / "deps.json"
    registry.write_text('{"bert-base-uncased": {"additional_deps": ["no-such-package"]}}', encoding="utf-8")
    monkeypatch.setenv("HFACCEL_REGISTRY", str(registry))
    outcome = make().test_placement("fake:0")["placement"]
    assert outcome["status"] == "unavailable"
    assert "pip install no-such-package" in outcome["reason"]


@pytest.mark.slow
def test_the_two_checks_of_the_plan_on_the_cpu() -> None:
    results: dict[str, Any] = {}
    bert = make("bert-base-uncased")
    results.update(bert.test_pipeline())
    results.update(bert.test_from_pretrained("cpu"))
    assert {name: outcome["status"] for name, outcome in results.items()} == {
        "pipeline": "passed",
        "from_pretrained": "passed",
    }


def test_a_model_of_another_class_is_refused() -> None:
    for ask in (lambda: BertModels().run_tests(model_id="gpt2"), lambda: make("gpt2").test_forward("fake:0")):
        with pytest.raises(ConfigError, match="BertModels: model 'gpt2' is GPT2LMHeadModel, and the class") as caught:
            ask()
        assert "tests `architectures` = Bert*, DistilBert*" in str(caught.value)
    with pytest.raises(HfAccelError, match="Did you mean 'bert-base-uncased'"):
        _ = BertModels("bert-base-uncasd").task


@pytest.mark.parametrize("name", ["task", "dependencies"])
def test_what_the_registry_says_cannot_be_set_in_the_class(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} cannot be set here, but in a registry file .--hf-registry."):
        type("TestMine", (ModelClassTests,), {name: "x"})


def test_pytest_collects_the_class_and_an_overridden_check(project: Project) -> None:
    project.write(
        "test_mine.py",
        """
from pytest_hfaccel import ModelClassTests


class TestMine(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_placement(self, hf_check):
        super().test_placement(hf_check)
        assert self.model_id == "bert-base-uncased"

    def test_own(self, hf_cell):
        assert hf_cell.model.name == self.model_id
""",
    )
    found = project.run("test_mine.py", "--hf-device", "fake:0", "-k", "placement or own", "-W", "error")
    assert found.code == 0, found.output
    assert found.statuses("bert-base-uncased-fake0-fp32") == {"placement": "passed", "own": "passed"}


def test_help_of_a_script_shows_our_options_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("model_classes/test_hf_bert.py", ["--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: python test_hf_bert.py [options] [arguments of pytest]" in text
    for option in RunConfig.options():
        if flag := option.flag:
            assert f"  {flag.replace('--hf-', '--')}" in text
    assert "--collect-only" not in text
    assert "--model" in text
    assert "--performance" in text


@pytest.mark.slow
def test_the_options_of_a_script_work(project: Project) -> None:
    module = (project.directory / "test_hf_bert.py").read_text(encoding="utf-8")
    script = "from pytest_hfaccel import main\n" + module + '\n\nif __name__ == "__main__":\n    main(__file__)\n'
    project.write("test_hf_bert.py", script)
    arguments = ["--all-models", "--device=fake:0", "--weights", "tiny", "--reports", "here", "-k", "placement", "-q"]
    done = run_python(["test_hf_bert.py", *arguments], project.directory, environment(project.cache))
    assert done.returncode == 0, done.stderr
    assert "distilbert-base-uncased [tiny]" in done.stdout, done.stdout + done.stderr
    assert (project.directory / "here").is_dir()
