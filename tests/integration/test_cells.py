"""Real cells: a tiny BERT on the CPU and on OpenVINO, built on disk, with the whole battery."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

DEVICES = ("--hf-device", "cpu,openvino:CPU")


@pytest.fixture(scope="module")
def distilbert(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> HfRun:
    """One run that several tests look at."""
    project = Project(tmp_path_factory.mktemp("distilbert"), shared_cache)
    return project.run("--hf-model", "distilbert-base-uncased", *DEVICES, "--junitxml", "junit.xml")


def test_everything_passes(distilbert: HfRun) -> None:
    assert distilbert.code == 0, distilbert.output
    assert set(distilbert.counts) == {"passed"}


def test_the_class_of_the_model_ran_not_the_module_s(distilbert: HfRun) -> None:
    assert {result.architecture for result in distilbert.results.values()} == {"DistilBertForMaskedLM"}


def test_header_and_reports_say_which_weights_ran(distilbert: HfRun) -> None:
    assert "hfaccel: weights tiny (" in distilbert.output
    assert {result.weights for result in distilbert.results.values()} == {"tiny"}
    assert all(result.weights_reason for result in distilbert.results.values())


def test_fp32_on_openvino_is_fp32(distilbert: HfRun) -> None:
    result = distilbert.results["distilbert-base-uncased-openvinocpu-fp32"]
    parity = next(check for check in result.checks if check.name == "parity")
    assert result.placement["effective_dtype"] == "fp32"
    assert result.placement["actual_devices"] == ["CPU"]
    assert parity.measures["rel_l2"] < 1e-5


def test_each_cell_was_loaded_once(distilbert: HfRun) -> None:
    loads = distilbert.summary["pool"]["loads_by_key"]
    assert len(loads) == 3  # on the CPU, on OpenVINO, and in fp16 for the canary of both
    assert set(loads.values()) == {1}


def test_the_canary_sang_on_every_device(distilbert: HfRun) -> None:
    for cell in ("distilbert-base-uncased-cpu-fp32", "distilbert-base-uncased-openvinocpu-fp32"):
        canary = next(check for check in distilbert.results[cell].checks if check.name == "canary")
        assert canary.status == "passed"
        assert canary.measures["rel_l2"] > 1e-4


def test_junit_carries_the_outcome(distilbert: HfRun) -> None:
    root = ET.parse(distilbert.reports.parent / "junit.xml").getroot()  # noqa: S314
    values = [node.get("value") for node in root.iter("property") if node.get("name") == "hfaccel"]
    outcomes = [json.loads(value)["outcome"] for value in values if value]
    assert len(outcomes) == distilbert.counts["passed"]
    assert {"parity", "canary", "placement"} <= {outcome["name"] for outcome in outcomes}


def test_a_precision_the_device_cannot_run_is_never_reported_as_run(project: Project) -> None:
    """bf16 either really ran as bf16, or the cell says that this CPU cannot and what would have run instead."""
    # A model that is converted already.
    named = ("--hf-model", "distilbert-base-uncased")
    run = project.run(*named, "--hf-device", "openvino:CPU", "--hf-dtype", "bf16", "-k", "placement or parity")
    result = run.results["distilbert-base-uncased-openvinocpu-bf16"]
    if result.status == "passed":
        assert result.placement["effective_dtype"] == "bf16"
    else:
        assert result.status == "unavailable"
        assert result.implementation == "unavailable"
        assert "bf16" in str(result.reason)
        assert "skipped" in run.counts


def test_a_device_that_is_not_here_is_unavailable_with_a_reason(project: Project) -> None:
    run = project.run("--hf-device", "xpu:0", "-k", "parity or forward")
    result = run.results["bert-base-uncased-xpu0-fp32"]
    assert result.status == "unavailable"
    assert result.reason


def test_a_test_of_the_user_s_own(project: Project) -> None:
    project.write(
        "test_hf_bert.py",
        """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_shape(self, hf_cell, hf_model, hf_inputs, hf_reference):
        logits = hf_model.forward(hf_inputs.forward)["logits"]
        assert logits.shape == hf_reference.outputs["logits"].shape
        assert hf_cell.device.kind == "cpu"

    def test_pipe(self, hf_pipeline, hf_inputs):
        assert hf_pipeline(*hf_inputs.pipeline, **hf_inputs.pipeline_kwargs)

    def test_wrong(self, hf_model, hf_inputs):
        assert hf_model.forward(hf_inputs.forward)["logits"].abs().max() < 0
""",
    )
    run = project.run("--hf-device", "cpu", "-k", "shape or pipe or wrong")
    assert run.code == 1, run.output
    statuses = run.statuses("bert-base-uncased-cpu-fp32")
    assert statuses["shape"] == "passed"
    assert statuses["pipe"] == "passed"
    assert statuses["wrong"] == "failed"


def test_as_a_script_and_without_pytest(project: Project) -> None:
    project.write(
        "test_hf_bert.py",
        """
import sys

from pytest_hfaccel import ModelClassTests, main


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"


if __name__ == "__main__":
    raise SystemExit(main(__file__))
""",
    )
    project.write(
        "test_script.py",
        """
import json, subprocess, sys

import test_hf_bert


def test_script():
    arguments = ["--model", "bert-base-uncased", "--performance", "-q", "-k", "performance"]
    done = subprocess.run([sys.executable, "test_hf_bert.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.load(open("reports/by_class/bert_models.json"))["cells"]
    (check,) = [check for cell in cells for check in cell["checks"]]
    assert check["name"] == "performance"
    assert check["status"] == "passed"


def test_run_tests():
    record = test_hf_bert.TestBert().run_tests("cpu")
    assert record["status"] == "passed"
    assert record["class"]["status"] == "passed"
    assert {"parity", "canary"} <= {check["name"] for check in record["checks"]}
""",
    )
    run = project.run("test_script.py")
    assert run.code == 0, run.output


@pytest.mark.skipif(find_spec("onnxruntime") is None or find_spec("onnxscript") is None, reason="needs the extra onnx")
def test_onnxruntime_passes_the_battery_and_refuses_what_it_would_compute_in_fp32(project: Project) -> None:
    run = project.run("--hf-device", "onnxruntime:CPU", "--hf-dtype", "fp32,int8,fp16", timeout=600)
    assert not run.counts.get("failed"), run.output
    exact, small, half = (
        run.results[f"bert-base-uncased-onnxruntimecpu-{dtype}"] for dtype in ("fp32", "int8", "fp16")
    )
    assert (exact.status, small.status, half.status) == ("passed", "passed", "unavailable")
    assert [each.placement["effective_dtype"] for each in (exact, small)] == ["fp32", "int8"]
    assert set(exact.placement["details"]["nodes"]) == {"CPUExecutionProvider"}
    assert "would compute at fp32 without saying so" in (half.reason or "")
