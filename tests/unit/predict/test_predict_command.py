"""`hfaccel predict` and `hfaccel calibrate`: what they print, on an invented transformer and machine."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import hardware, predict
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.predict.calibration import load_calibrations
from tests.unit.predict.predict_samples import REPORT, block_trace, even_calibration


@pytest.fixture(autouse=True)
def invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.setattr("pytest_hfaccel.hardware.probe_devices", lambda *_: REPORT)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for command in (predict, hardware):
        command.add_parser(commands)
    return parser.parse_args(arguments)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    given = parse(*arguments)
    assert given.run(given) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("model", [("bert-base-uncased",), ("--model", "bert-base-uncased")])
def test_a_recommendation(capsys: pytest.CaptureFixture[str], model: tuple[str, ...]) -> None:
    lines = run(capsys, "predict", *model, "--batch-size", "8", "--hardware", "cuda", "cpu", "webnn").splitlines()
    lines[2] = re.sub(r":\d+\)$", ")", lines[2])  # the registry grows
    assert lines[:5] == [
        "=== Hardware for bert-base-uncased ===",
        "Asked: inference, fp32, batch 8, 128 tokens",
        "Model: embedding; dimensions of bert-base-uncased (models.yaml)",
        "Primary recommendation: cuda",
        "Fallback options: cpu, webnn",
    ]
    assert lines[6].split() == ["hardware", "latency", "80", "%", "interval", "throughput", "memory", "score", "source"]
    assert lines[7].startswith("cuda ")
    assert lines[7].endswith("datasheet")
    assert lines[9].startswith("webnn: no number; declared real: declared for the embedding family; ")
    assert (
        "it is not in this machine, and no calibration of it is at hand: `hfaccel calibrate --device webnn`" in lines[9]
    )
    assert lines[11].startswith("Explanation: cuda (NVIDIA A100 SXM 80 GB): ")


def test_the_answer_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = json.loads(run(capsys, "predict", "gpt2", "--json", "--output-file", "out/answer.json"))
    assert printed == json.loads((tmp_path / "out" / "answer.json").read_text(encoding="utf-8"))
    assert printed["primary_recommendation"] in ("cpu", "openvino:CPU")


def test_reasons_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "predict", "gpt2", "--hardware", "cuda", "--debug")
    assert "  not measured: no row of gpt2 on cuda:a100-80gb at fp32" in out
    assert "  not calibrated: cuda is not in this machine, and the database has no rows of it" in out


def test_detection_alone_and_with_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    alone = run(capsys, "predict", "--detect-hardware")
    assert "no NVIDIA driver" in alone
    assert "Primary" not in alone
    both = run(capsys, "predict", "--detect-hardware", "--model", "gpt2", "--batch-size", "32")
    assert both.startswith(alone.rstrip())
    assert "Primary recommendation: " in both


def test_a_distributed_training(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", "--model", "llama-7b", "--mode", "training", "--distributed", "--gpu-count", "8")
    out = run(capsys, *words)
    assert "Asked: training, fp32, batch 1, 128 tokens, 8 devices" in out
    assert "Distributed strategy: " in out
    assert "memory per device: " in out
    assert "Next best:" in out


def test_nothing_can_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "predict", "llama-70b", "--hardware", "cuda:l4", code=1)
    assert "Primary recommendation: none: nothing considered can run it" in out
    assert "does not fit" in out


def test_a_matrix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("predict", "--generate-matrix", "--hardware", "cuda", "cpu", "--output-file", "matrix.json")
    out = run(capsys, *words)
    matrix = json.loads((tmp_path / "matrix.json").read_text(encoding="utf-8"))
    assert matrix["hardware_platforms"] == ["cuda", "cpu"]
    assert (matrix["batch_sizes"], matrix["precision_options"]) == ([1, 8, 32], ["fp32", "fp16", "int8"])
    assert "Latency at fp32:" in out
    assert "cuda: NVIDIA A100 SXM 80 GB" in out
    one = ("--model", "gpt2", "--batch-size", "2", "--precision", "int8", "--json")
    small = json.loads(run(capsys, "predict", "--generate-matrix", *one))
    assert list(small["models"]) == ["gpt2"]
    assert (small["batch_sizes"], small["precision_options"]) == ([2], ["int8"])


@pytest.mark.slow
def test_a_matrix_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = (
        "predict",
        "gpt2",
        "--generate-matrix",
        "--visualize",
        "--output-dir",
        "plots",
        "--hardware",
        "cuda",
        "cpu",
    )
    out = run(capsys, *words)
    files = sorted((tmp_path / "plots").iterdir())
    assert files
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert f"Wrote {Path('plots') / files[0].name}" in out


def test_accuracy_of_nothing_yet(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "predict", "gpt2", "--hardware", "cpu", "--database", "rows.duckdb")
    assert "no prediction has been measured yet" in run(
        capsys, "predict", "--accuracy", "--database", "rows.duckdb", code=1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a model, or one of --generate-matrix"),
        (("gpt2", "--config", "none.json"), "--config: none.json: there is no such file"),
        (("gpt2", "--benchmark-dir", "none"), "--benchmark-dir: none: there is no such file"),
        (("gpt2", "--hardware", "tpu"), "'tpu' is not a kind of hardware"),
        (("gpt2", "--batch-size", "0"), "batch_size: 0 is not allowed"),
        (("--train", "--database", "none.duckdb"), "none.duckdb: there is no such file"),
        (("--accuracy", "--database", "none.duckdb"), "none.duckdb"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], message: str) -> None:
    given = parse("predict", *arguments)
    with pytest.raises(ConfigError) as caught:
        given.run(given)
    assert message in caught.value.message


def test_an_answer_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    given = parse("predict", "gpt2", "--output-file", "file/answer.json")
    with pytest.raises(ConfigError, match=r"--output-file: file/answer\.json cannot be written"):
        given.run(given)


def test_calibrations_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def measured(device: str, dtype: str, *, threads: int | None, note: Any) -> Any:
        asked.append((device, dtype, threads))
        note("matrix products")
        return replace(even_calibration(device, dtype, threads or 4))

    monkeypatch.setattr("pytest_hfaccel.predict.calibration.calibrate", measured)
    out = run(capsys, "calibrate", "--dtype", "fp32", "bf16", "--threads", "2", "--database", "rows.duckdb")
    devices = ("cpu", "openvino:CPU")
    assert asked == [(device, dtype, 2) for device in devices for dtype in ("fp32", "bf16")]
    assert out.splitlines()[0].startswith(
        "cpu (an even device) at fp32, 2 threads: 50 GFLOP/s, 8.0 GB/s, 10 us per call;"
    )
    assert len(load_calibrations(tmp_path / "cache")) == 4
    assert len(BenchmarkDatabase("rows.duckdb").calibrations()) == 4


def test_a_device_that_does_not_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(device: str, *_: Any, **__: Any) -> Any:
        if device == "cuda:0":
            raise BackendUnavailable("cuda:0 cannot be calibrated: no driver")
        return even_calibration(device)

    monkeypatch.setattr("pytest_hfaccel.predict.calibration.calibrate", measured)
    given = parse("calibrate", "--device", "cuda:0", "cpu")
    assert given.run(given) == 1
    printed = capsys.readouterr()
    assert "cuda:0 at fp32: cuda:0 cannot be calibrated: no driver" in printed.err
    assert printed.out.startswith("cpu (an even device)")


def test_threads_must_be_some() -> None:
    given = parse("calibrate", "--threads", "0")
    with pytest.raises(ConfigError, match="--threads: 0 is not allowed"):
        given.run(given)
