"""`hfaccel predict` as users start it: the examples of the old guide, and predictions that a measurement follows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness import environment, run_python

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

SMALL = """
version: 1
models:
  llama-7b:
    architecture: LlamaForCausalLM
    dims: {hidden_size: 256, intermediate_size: 512, num_hidden_layers: 2, num_attention_heads: 4, vocab_size: 1000}
"""
"""The large model of the examples, made small: it is the options that are tested here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's directory, with the caches of all runs of this module."""
    made = tmp_path_factory.mktemp("predict")
    (made / "registry.yaml").write_text(SMALL, encoding="utf-8")
    return made


def hfaccel(folder: Path, words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = environment(folder / "cache", HFACCEL_REGISTRY="registry.yaml")
    done = run_python(["-m", "pytest_hfaccel", *words.split()], folder, env)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def matrix_of(folder: Path, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("--model bert-base-uncased --batch-size 8", "Primary recommendation: "),
        ("--model t5-small --hardware cuda cpu --precision fp16", "Primary recommendation: cuda"),
        ("--model gpt2 --mode training --batch-size 32", "Asked: training, fp32, batch 32"),
        ("--detect-hardware", "A plain run tests on"),
        ("--detect-hardware --model gpt2 --batch-size 32", "Primary recommendation: "),
        ("--model llama-7b --mode training --distributed --gpu-count 8", "Distributed strategy: "),
        ("--model bert-base-uncased --hardware webnn webgpu", "webnn: no number"),
    ],
)
def test_the_examples_of_the_guide(folder: Path, words: str, printed: str) -> None:
    assert printed in hfaccel(folder, f"predict {words}").stdout


def test_the_matrices_of_the_guide(folder: Path) -> None:
    hfaccel(folder, "predict --generate-matrix --output-file matrix.json")
    assert len(matrix_of(folder, "matrix.json")["hardware_platforms"]) == 7
    run = hfaccel(folder, "predict --generate-matrix --hardware cuda cpu --output-file matrix.json")
    assert matrix_of(folder, "matrix.json")["hardware_platforms"] == ["cuda", "cpu"]
    assert "hfaccel: 1 of 6: bert-base-uncased" in run.stderr
    hfaccel(folder, "predict --generate-matrix --visualize --output-dir visualizations")
    assert len(list((folder / "visualizations").glob("*.png"))) >= 4


def test_predictions_are_compared_with_measurements(folder: Path) -> None:
    hfaccel(folder, "predict bert-tiny --hardware cpu --database rows.duckdb --batch-size 2")
    code = """
from dataclasses import replace
from pytest_hfaccel.history import BenchmarkDatabase, RunRecord
from pytest_hfaccel.hardware import probe_devices
from pytest_hfaccel.predict.engine import Engine
from pytest_hfaccel.predict.configuration import PredictorConfig
from tests.unit.predict.predict_samples import row

cpu = probe_devices().presences[0]
measured = row(5.0, model="bert-tiny", batch=2, device_name=cpu.name, threads=Engine(PredictorConfig()).threads)
record = RunRecord("x", "performance", "2099-01-01T00:00:00", "2099-01-01T00:01:00", True, measurements=[measured])
BenchmarkDatabase("rows.duckdb").write_run(record)
"""
    run_python(["-c", code], folder, environment(folder, PYTHONPATH=str(Path(__file__).parents[2]))).check_returncode()
    printed = hfaccel(folder, "predict --accuracy --database rows.duckdb").stdout
    assert "latency_ms  cpu     embedding  datasheet  1 " in printed
    again = hfaccel(folder, "predict bert-tiny --hardware cpu --database rows.duckdb --batch-size 2").stdout
    assert "5.00 ms" in again
    assert "measured" in again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict", "name a model"),
        ("predict gpt2 --hardware tpu", "'tpu' is not a kind of hardware"),
        ("predict gpt2 --config none.json", "there is no such file"),
        ("predict --train --database none.duckdb", "there is no such file"),
        ("calibrate --device cuda --threads 1", "cuda cannot be calibrated at fp32"),
    ],
)
def test_mistakes_are_told_in_a_line(folder: Path, words: str, message: str) -> None:
    assert message in hfaccel(folder, words, code=1).stderr


def test_bad_usage(folder: Path) -> None:
    assert "invalid choice: 'fp8'" in hfaccel(folder, "predict gpt2 --precision fp8", code=2).stderr
