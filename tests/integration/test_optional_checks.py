"""A run with `--hf-training`, `--hf-attention` and `--hf-compile`, and one at int8."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness import HfRun, Project

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

OPTIONS = {"training": "--hf-training", "attention": "--hf-attention", "compile": "--hf-compile"}
MODELS = ("bert-base-uncased", "gpt2")

TWO_FAMILIES = """
from pytest_hfaccel import ModelClassTests


class TestTwo(ModelClassTests):
    architectures = ("Bert*", "GPT2*")
    default_model = "bert-base-uncased"
"""

BROKEN = """
import pytest


@pytest.fixture(autouse=True)
def frozen(monkeypatch):
    \"\"\"Every copy of a model that is loaded has a layer that lets no gradient through.\"\"\"
    from pytest_hfaccel.checks import training

    right = training.private_copy

    def broken(*arguments):
        model = right(*arguments)
        model.bert.encoder.layer[0].register_forward_hook(lambda _m, _i, output: output.detach())
        return model

    monkeypatch.setattr(training, "private_copy", broken)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> HfRun:
    project = Project(tmp_path_factory.mktemp("optional"), shared_cache)
    project.write("test_hf_bert.py", TWO_FAMILIES)
    named = [argument for model in MODELS for argument in ("--hf-model", model)]
    chosen = " or ".join(OPTIONS)
    return project.run(*named, "--hf-device", "cpu", *OPTIONS.values(), "-k", chosen, timeout=900)


@pytest.mark.parametrize("model", MODELS)
def test_all_three_pass_with_their_numbers(run: HfRun, model: str) -> None:
    assert run.code == 0, run.output
    result = run.results[f"{model}-cpu-fp32"]
    outcomes = {check.name: check for check in result.checks}
    assert {name: str(check.status) for name, check in outcomes.items()} == dict.fromkeys(OPTIONS, "passed")
    assert outcomes["training"].measures["loss_after"] < outcomes["training"].measures["loss_before"]
    assert outcomes["attention"].measures["sdpa"]["plain"] < 1e-5
    compiled = [
        outcomes["compile"].measures[name] for name in ("inductor", "openvino") if name in outcomes["compile"].measures
    ]
    assert compiled
    assert all(found["graphs"] >= 1 for found in compiled)


def test_they_are_not_collected_unless_asked_for(project: Project) -> None:
    listed = project.run("--collect-only", "-q", "--hf-device", "cpu", "--hf-training")
    assert "test_training[" in listed.output
    assert "test_attention[" not in listed.output
    assert "test_compile[" not in listed.output


def test_they_are_not_collected_where_they_cannot_apply(project: Project) -> None:
    listed = project.run(
        "--collect-only", "-q", "--hf-device", "openvino:CPU,cpu", "--hf-dtype", "int8", *OPTIONS.values()
    )
    assert "test_parity[" in listed.output
    assert not any(f"test_{name}[" in listed.output for name in OPTIONS)


def test_a_model_that_does_not_learn_fails_the_run(project: Project) -> None:
    project.write("conftest.py", BROKEN)
    broken = project.run("--hf-device", "cpu", "--hf-training", "-k", "training")
    assert broken.code == 1
    outcome = broken.results["bert-base-uncased-cpu-fp32"].checks[0]
    assert "no gradient, although the loss depends on them: bert.embeddings" in (outcome.reason or "")


@pytest.mark.skipif(find_spec("nncf") is None or find_spec("openvino") is None, reason="needs the extra openvino")
def test_int8_on_openvino_passes_the_battery(project: Project) -> None:
    done = project.run("--hf-device", "openvino:CPU", "--hf-dtype", "int8", timeout=600)
    assert done.code == 0, done.output
    result = done.results["bert-base-uncased-openvinocpu-int8"]
    assert result.status == "passed"
    assert result.placement["effective_dtype"] == "int8"
    assert set(result.placement["details"]["product_weights"]) == {"u8"}
    assert {"parity", "canary", "placement"} <= {check.name for check in result.checks}


@pytest.mark.skipif(find_spec("nncf") is not None, reason="nncf is installed")
def test_int8_without_nncf_is_unavailable_and_says_what_to_install(project: Project) -> None:
    done = project.run("--hf-device", "openvino:CPU", "--hf-dtype", "int8", "-k", "placement")
    result = done.results["bert-base-uncased-openvinocpu-int8"]
    assert result.status == "unavailable"
    assert "pip install 'pytest-hfaccel[openvino]'" in (result.reason or "")
