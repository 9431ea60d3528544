"""What a model's registry entry asks for is not installed: nothing of it runs as if that did not matter."""

from __future__ import annotations

import json

import pytest

from pytest_hfaccel.benchmark.measurement import NotMeasured
from pytest_hfaccel.campaign.processes import measure_isolated
from pytest_hfaccel.core.spec import ModelSpec, VersionBound
from tests.harness import Project

REGISTRY = """
version: 1
classes:
  BertForPreTraining: {task: fill-mask, dependencies: [no-such-package-of-the-class]}
models:
  bert-well: {architecture: BertModel}
  bert-too-old: {architecture: BertModel, dependencies: [tokenizers>=99]}
  bert-lacking: {architecture: BertModel, dependencies: [no-such-package]}
  bert-lacking-by-class: {architecture: BertForPreTraining}
  bert-bound: {architecture: BertModel, min_transformers: {version: "99", reason: "a new class"}}
"""

OWN_TEST = """

    def test_own(self, hf_model):
        assert hf_model.nbytes
"""

UNMET = {
    "bert-too-old": ("needs tokenizers>=99 (", "pip install 'tokenizers>=99'"),
    "bert-lacking": ("needs no-such-package (not installed)", "pip install no-such-package"),
    "bert-lacking-by-class": ("needs no-such-package-of-the-class (not installed)", "no-such-package-of-the-class"),
    "bert-bound": ("needs transformers >= 99 (", "pip install 'transformers>=99'"),
}


def project_of(project: Project, *models: str) -> list[str]:
    project.write("mine.yaml", REGISTRY)
    module = project.directory / "test_hf_bert.py"
    module.write_text(module.read_text(encoding="utf-8") + OWN_TEST, encoding="utf-8")
    selected = "resolves or placement or own"
    options = ["--hf-registry", "mine.yaml", "--hf-device", "fake:0", "-k", selected]
    return [*options, *(part for name in models for part in ("--hf-model", name))]


def test_each_check_is_unavailable_with_what_to_install(project: Project) -> None:
    log = project.directory / "log.jsonl"
    found = project.run(*project_of(project, "bert-well", *UNMET), HFACCEL_FAKE_LOG=str(log))
    assert found.code == 0, found.output
    for model, texts in UNMET.items():
        for cell in (model, f"{model}-fake0-fp32"):
            assert set(found.statuses(cell).values()) == {"unavailable"}
            result = found.results[cell]
            assert result.stage == "resolve"
            for text in texts:
                assert text in (result.reason or "")
    assert found.statuses("bert-well-fake0-fp32") == {"placement": "passed", "own": "passed"}
    loads = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["event"] == "load"]
    assert [json.loads(line)["cell"] for line in loads] == ["bert-well-fake0-fp32"]
    assert {name: found.counts[name] for name in ("passed", "skipped")} == {"passed": 3, "skipped": 3 * len(UNMET)}


def test_a_run_that_tested_nothing_has_not_passed(project: Project) -> None:
    arguments = project_of(project, "bert-lacking")
    found = project.run(*arguments)
    assert found.code == 0, found.output
    assert found.summary["passed"] is False
    assert found.summary["counts"]["cells"] == {"unavailable": 2}
    required = project.run(*arguments, "--hf-require-device", "fake:0")
    assert required.code != 0, required.output


@pytest.mark.usefixtures("forked_processes")
def test_nothing_is_measured_either(project: Project) -> None:
    bound = VersionBound("99", "a new class")
    for unmet in ({"dependencies": ("no-such-package",)}, {"min_transformers": bound}):
        spec = ModelSpec("m", "BertModel", "feature-extraction", **unmet)
        (found,) = measure_isolated(
            spec, "tiny", "cpu", "fp32", [(1, 8)], threads=1, cache_dir=project.cache / "hfaccel", timeout=120
        )
        assert isinstance(found, NotMeasured)
        assert found.status == "unavailable"
        assert "Install it with: pip install" in (found.reason or "")


def test_a_resumed_run_notices_that_it_was_installed(project: Project) -> None:
    arguments = project_of(project, "bert-lacking")
    assert project.run(*arguments).summary["counts"]["cells"] == {"unavailable": 2}
    project.write("site/no_such_package-1.0.dist-info/METADATA", "Name: no-such-package\nVersion: 1.0\n")
    resumed = project.run(*arguments, "--hf-resume", PYTHONPATH=str(project.directory / "site"))
    assert resumed.statuses("bert-lacking-fake0-fp32") == {"placement": "passed", "own": "passed"}
