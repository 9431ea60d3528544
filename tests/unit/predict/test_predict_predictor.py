"""`HardwareModelPredictor`: the guide's structure, on an invented transformer instead of a traced one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import pytest_hfaccel
from pytest_hfaccel import predict
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.predict import HardwareModelPredictor
from pytest_hfaccel.predict.calibration import save_calibration
from tests.unit.predict.predict_samples import CHIP, REPORT, block_trace, even_calibration, row

NUMBERS = ("throughput", "latency", "memory_usage")
Make = Callable[..., HardwareModelPredictor]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Makes predictors for an invented machine, with empty caches and without a hub."""
    for name, value in {
        "HF_HOME": str(tmp_path / "hub"),
        "HFACCEL_CACHE": str(tmp_path / "cache"),
        "HFACCEL_REPORTS": str(tmp_path / "reports"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)

    def predictor(*arguments: Any, **options: Any) -> HardwareModelPredictor:
        return HardwareModelPredictor(*arguments, report=REPORT, **options)

    return predictor


def calibrated(tmp_path: Path, *devices: str) -> None:
    for device in devices or ("cpu", "openvino:CPU"):
        save_calibration(replace(even_calibration(device, threads=4), device_name=CHIP), tmp_path / "cache")


def test_runtimes_of_onnx_are_predicted_from_their_calibrations(make: Make, tmp_path: Path) -> None:
    make()  # for the empty caches
    calibrated(tmp_path, "onnxruntime:CPU", "wasm")
    adapter = {"implementation": "emulated"}
    on_gpu = replace(even_calibration("webgpu", threads=4), device_name="SwiftShader Device", details=adapter)
    save_calibration(on_gpu, tmp_path / "cache")
    report = HardwareReport(
        (
            *REPORT.presences,
            Presence(Device("onnxruntime", "CPU"), True, "onnxruntime 1.32", CHIP),
            Presence(Device("wasm"), True, "onnxruntime-web 1.30", CHIP),
            Presence(Device("webgpu"), True, "onnxruntime-web 1.30", details={"implementation": "unknown"}),
        )
    )
    predictor = HardwareModelPredictor(report=report)
    names = ["onnxruntime", "wasm", "webgpu"]
    found = predictor.predict_performance("bert-base-uncased", hardware=names)["predictions"]
    assert {name: each["source"] for name, each in found.items()} == dict.fromkeys(names, "calibrated")
    assert f"measured on {CHIP} (4 threads" in found["wasm"]["basis"]
    assert "SwiftShader Device" in found["webgpu"]["basis"]
    assert "a software adapter computes there" in found["webgpu"]["basis"]
    refused = predictor.predict_performance("bert-base-uncased", hardware=names, precision="fp16")
    assert refused["predictions"] == {}
    for name in names:
        basis = refused["not_predicted"][name]["basis"]
        assert basis.startswith("not supported here: ")
        assert "can be calibrated at fp32 only, not at fp16" in basis


def test_a_recommendation_has_the_guides_keys(make: Make) -> None:
    found = make().predict_optimal_hardware("bert-base-uncased", "embedding", batch_size=8)
    for key in ("primary_recommendation", "fallback_options", "explanation", "compatible_hardware", "all_scores"):
        assert key in found
    assert found["prediction_source"] == "datasheet"
    assert found["compatible_hardware"] == [found["primary_recommendation"], *found["fallback_options"]]
    assert (found["model_family"], found["batch_size"], found["mode"]) == ("embedding", 8, "inference")
    json.dumps(found)


def test_by_default_this_machine_is_considered(make: Make) -> None:
    predictor = make()
    assert predictor.available_hardware == ["cpu", "openvino:CPU"]
    assert set(predictor.predict_optimal_hardware("gpt2")["all_scores"]) == {"cpu", "openvino:CPU"}
    distributed = predictor.predict_optimal_hardware("gpt2", is_distributed=True, gpu_count=2)
    assert set(distributed["all_scores"]) == {"cpu", "openvino:CPU", "cuda", "rocm", "xpu"}


def test_a_prediction_has_the_guides_numbers(make: Make) -> None:
    found = make().predict_performance("bert-base-uncased", "embedding", hardware="cuda", batch_size=8)
    numbers = found["predictions"]["cuda"]
    assert all(isinstance(numbers[name], float) for name in NUMBERS)
    assert numbers["throughput"] == pytest.approx(8000 / numbers["latency"])
    for name in NUMBERS:
        low, high = numbers["interval"][name]
        assert low <= numbers[name] <= high
    assert numbers["source"] == "datasheet"
    assert numbers["device"] == "cuda (NVIDIA A100 SXM 80 GB)"
    assert set(numbers["passed_over"]) == {"measured", "learned", "calibrated"}


def test_web_platforms_are_declared_and_have_no_number(make: Make) -> None:
    found = make().predict_performance("bert-base-uncased", hardware=["webnn", "webgpu"], precision="fp16")
    assert found["predictions"] == {}
    assert {name: each["source"] for name, each in found["not_predicted"].items()} == dict.fromkeys(
        ("webnn", "webgpu"), "declared"
    )
    chosen = make().predict_optimal_hardware("bert-base-uncased", available_hardware=["webnn", "webgpu", "cpu"])
    assert chosen["primary_recommendation"] == "cpu"
    assert chosen["compatible_hardware"] == ["cpu", "webnn", "webgpu"]


def test_a_calibration_comes_before_a_data_sheet(make: Make, tmp_path: Path) -> None:
    calibrated(tmp_path, "cpu")
    found = make().predict_performance("gpt2", hardware=["cpu", "openvino"])["predictions"]
    assert found["cpu"]["source"] == "learned"
    assert "none of them of this machine" in found["cpu"]["basis"]
    assert found["openvino"]["source"] == "datasheet"
    assert "no calibration of openvino:CPU" in found["openvino"]["passed_over"]["calibrated"]


def test_the_calibration_of_another_chip_says_nothing_about_this_one(make: Make, tmp_path: Path) -> None:
    save_calibration(even_calibration("cpu", threads=4), tmp_path / "cache")
    assert make().predict_performance("gpt2", hardware="cpu")["predictions"]["cpu"]["source"] == "datasheet"


def test_data_sheets_of_this_machine_are_noted(make: Make, tmp_path: Path) -> None:
    predictor = make()
    predictor.predict_performance("gpt2", hardware=["cpu", "cuda"])
    predictor.predict_performance("gpt2", hardware=["cpu", "cuda"])
    assert [note for note in predictor.notes if "`hfaccel calibrate`" in note] == [
        "cpu: not calibrated at this precision, so a data sheet is used; `hfaccel calibrate` measures a device in "
        "half a minute"
    ]
    calibrated(tmp_path)
    other = make()
    other.predict_performance("gpt2", hardware="cpu")
    assert other.notes == []


def test_what_cannot_be_calibrated_is_not_to_be(make: Make) -> None:
    predictor = make()
    predictor.predict_performance("gpt2", hardware="cpu+inductor")
    assert [note for note in predictor.notes if "data sheet" in note] == [
        "cpu+inductor: cannot be calibrated, so a data sheet is used; `hfaccel bench` measures models there, on which "
        "predictions can be based"
    ]


def test_measured_rows_come_first(make: Make, tmp_path: Path) -> None:
    reports = tmp_path / "results"
    reports.mkdir()
    rows = [row(7.0).to_json(), row(9.0, batch=8, device_name="another chip").to_json()]
    (reports / "run.json").write_text(json.dumps({"cells": rows}), encoding="utf-8")
    predictor = make(benchmark_dir=reports)
    found = predictor.predict_performance("bert-base-uncased", hardware=["cpu", "openvino"])["predictions"]
    assert (found["cpu"]["source"], found["cpu"]["latency"], found["cpu"]["rows"]) == ("measured", 7.0, 1)
    assert found["openvino"]["source"] == "datasheet"
    scaled = predictor.predict_performance("bert-base-uncased", hardware="cpu", batch_size=8)["predictions"]["cpu"]
    assert scaled["source"] == "measured"
    assert 7.0 < scaled["latency"] < 80.0
    assert scaled["latency"] != 9.0
    changes: list[dict[str, Any]] = [{"precision": "bf16"}, {"mode": "training"}]
    for changed in changes:
        other = predictor.predict_performance("bert-base-uncased", hardware="cpu", **changed)
        assert {**other["predictions"], **other["not_predicted"]}["cpu"]["source"] != "measured"


def test_places_that_are_not_there_are_done_without(make: Make) -> None:
    predictor = make("./benchmark_results", "./benchmark_db.parquet", "./config.json")
    assert predictor.predict_optimal_hardware("gpt2")["primary_recommendation"]
    notes = "\n".join(predictor.notes)
    for name in ("benchmark_results", "benchmark_db.parquet", "config.json"):
        assert f"{name}: there is no such file" in notes


def test_the_configuration_file(make: Make, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"devices": {"cuda": "t4"}, "hardware": ["cuda", "cpu"]}', encoding="utf-8")
    found = make(config_path=config).predict_optimal_hardware("gpt2")
    assert set(found["all_scores"]) == {"cuda", "cpu"}
    assert found["predictions"]["cuda"]["device"] == "cuda (NVIDIA T4)"
    config.write_text('{"device": {}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="Did you mean 'devices'"):
        make(config_path=config)


def test_what_does_not_fit_is_an_answer_with_numbers(make: Make) -> None:
    found = make().predict_optimal_hardware("llama-70b", available_hardware=["cuda:l4", "cpu"], precision="fp16")
    assert found["primary_recommendation"] is None
    advice = found["predictions"]["cuda:l4"]["advice"]
    assert found["predictions"]["cuda:l4"]["fits"] is False
    assert "Does not fit: needs" in advice
    assert "such devices among which the model is split" in advice


def test_llama_70b_goes_to_the_gpus_and_bert_tiny_may_stay(make: Make) -> None:
    gpus: dict[str, Any] = {"available_hardware": ["cuda:h100-sxm", "cpu"], "is_distributed": True, "gpu_count": 8}
    found = make().predict_optimal_hardware("llama-70b", precision="fp16", **gpus)
    assert found["primary_recommendation"] == "cuda:h100-sxm"
    assert "tensor parallel" in found["distributed"]["strategy"]
    assert found["distributed"]["fits"]
    training = make().predict_optimal_hardware("llama-70b", mode="training", precision="bf16", batch_size=8, **gpus)
    assert training["primary_recommendation"] != "cpu"
    tiny = make().predict_optimal_hardware("bert-tiny", available_hardware=["cuda", "cpu"])
    assert "cpu" in tiny["compatible_hardware"]


def test_training_is_for_torchs_devices(make: Make) -> None:
    found = make().predict_optimal_hardware("gpt2", mode="training", available_hardware=["openvino", "webnn", "cpu"])
    assert found["compatible_hardware"] == ["cpu"]
    assert "models are trained with torch" in found["all_scores"]["openvino"]["excluded"]
    training, inference = (
        make().predict_performance("gpt2", hardware="cpu", mode=mode)["predictions"]["cpu"]
        for mode in ("training", "inference")
    )
    assert training["latency"] > 2 * inference["latency"]
    assert training["memory_usage"] > 3 * inference["memory_usage"]


def test_a_model_of_which_nothing_is_known(make: Make) -> None:
    found = make().predict_optimal_hardware("foo-bar", "vision", available_hardware=["cuda", "cpu"])
    assert found["predictions"] == {}
    assert found["primary_recommendation"] == "cpu"
    assert "dimensions not known: foo-bar" in found["not_predicted"]["cpu"]["basis"]
    assert found["not_predicted"]["cpu"]["passed_over"]["datasheet"] == "what the model does is not known"


def test_a_model_that_cannot_be_traced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LoadError("BertForMaskedLM: its pass depends on values.")

    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", fail)
    found = make().predict_performance("bert-base-uncased", hardware=["cuda"])
    assert "its pass depends on values" in found["not_predicted"]["cuda"]["basis"]


def test_an_assumption_is_told(make: Make) -> None:
    found = make().predict_performance("mistral-24b", hardware="cuda:h100-sxm", precision="bf16")
    assert (
        "assumed: depth and width of mistralai/Mistral-7B-v0.1 scaled" in found["predictions"]["cuda:h100-sxm"]["basis"]
    )
    assert "assumed" in found["model"]


@pytest.mark.parametrize("hardware", ["cpu", "cuda", "openvino", "mps"])
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_more_work_never_takes_less(make: Make, tmp_path: Path, hardware: str, is_calibrated: bool) -> None:
    if is_calibrated:
        calibrated(tmp_path)
    predictor = make()

    def numbers(model: str = "gpt2", batch: int = 4, length: int = 64) -> tuple[float, float]:
        found = predictor.predict_performance(model, hardware=hardware, batch_size=batch, sequence_length=length)
        each = found["predictions"][hardware]
        return each["latency"], each["memory_usage"]

    grown = [
        [numbers(batch=batch) for batch in (1, 2, 3, 4, 7, 8, 32, 64)],
        [numbers(length=length) for length in (8, 20, 32, 48, 64, 128, 500)],
        [
            numbers(model)
            for model in ("bert-tiny", "bert-mini", "bert-medium", "bert-base-uncased", "bert-large-uncased")
        ],
    ]
    for series in grown:
        for before, after in pairwise(series):
            assert before[0] <= after[0] * (1 + 1e-9)
            assert before[1] <= after[1] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0 is not allowed"),
        ({"batch_size": 1.5}, "batch_size: 1.5 is not allowed"),
        ({"sequence_length": -1}, "sequence_length: -1"),
        ({"mode": "serving"}, "mode: 'serving' is not a mode. Allowed: inference, training"),
        ({"precision": "fp8"}, "precision: 'fp8' is not a precision. Allowed: fp32"),
        ({"mode": "training", "precision": "int8"}, "models are not trained at int8"),
        ({"available_hardware": ["cuda", "tpu"]}, "'tpu' is not a kind of hardware"),
        ({"model_family": "texts"}, "'texts' is not a family"),
        ({"gpu_count": 0}, "gpu_count: 0"),
        ({"model_name": " "}, "' ' is no name"),
    ],
)
def test_mistakes(make: Make, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make().predict_optimal_hardware(**{"model_name": "gpt2", **changed})
    assert message in caught.value.message


def test_three_dots_are_any_model(make: Make) -> None:
    assert make().predict_optimal_hardware(...)["model_name"] == "bert-base-uncased"


HEAVY = ("torch", "transformers", "numpy", "duckdb", "pandas", "sklearn", "matplotlib", "scipy")


@pytest.mark.parametrize("name", ["HardwareModelPredictor", "HardwareSelector", "train_prediction_models"])
def test_a_name_is_in_both_places(name: str) -> None:
    assert getattr(predict, name) is getattr(pytest_hfaccel, name)
    assert name in dir(predict)
    assert name in dir(pytest_hfaccel)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HardwarePredictor'"):
        _ = predict.HardwarePredictor


def test_the_names_load_nothing_heavy() -> None:
    code = f"""
import sys
from pytest_hfaccel import HardwareModelPredictor, HardwareSelector, train_prediction_models
from pytest_hfaccel.cli import make_parser
make_parser().parse_args(["predict", "gpt2"])
HardwareModelPredictor().engine.platforms.of("cuda:h100-sxm")
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
