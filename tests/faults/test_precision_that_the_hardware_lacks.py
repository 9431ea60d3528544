"""Half precision on a CPU without instructions for it, int8 without the package that rounds: no made-up speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.predict import HardwareModelPredictor
from pytest_hfaccel.predict.calibration import save_calibration
from tests.unit.predict.predict_samples import CHIP, GIB, block_trace, even_calibration


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("HF_HOME", "HFACCEL_CACHE", "HFACCEL_REPORTS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    return tmp_path / "hfaccel_cache"


def ask(flags: list[str], precision: str, name: str = CHIP) -> dict[str, Any]:
    """Ask where BERT should run at a precision on a machine with such a CPU, torch and OpenVINO."""
    details = {"cores": 4, "flags": flags}
    report = HardwareReport(
        (
            Presence(Device("cpu"), True, "4 cores", name, 16 * GIB, details),
            Presence(Device("openvino", "CPU"), True, "openvino", name, 16 * GIB, {"flags": flags}),
        )
    )
    return HardwareModelPredictor(report=report).predict_optimal_hardware("bert-base-uncased", precision=precision)


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("fp16", ["AVX2", "AVX-512", "AVX512_BF16"]), ("bf16", ["AVX2"]), ("bf16", ["AVX-512", "AVX512_VNNI"])],
)
def test_an_emulated_precision_has_no_number_from_a_data_sheet(precision: str, flags: list[str]) -> None:
    found = ask(flags, precision)
    assert found["predictions"] == {}
    why = found["not_predicted"]["cpu"]["basis"]
    assert f"this CPU has no instructions for {precision}" in why
    assert f"`hfaccel calibrate --dtype {precision}` measures it" in why


@pytest.mark.parametrize(("precision", "flags"), [("fp16", ["AVX512_BF16"]), ("bf16", ["AVX-512"])])
def test_what_openvino_refuses_is_not_recommended(precision: str, flags: list[str]) -> None:
    found = ask(flags, precision)
    assert "openvino:CPU" not in found["compatible_hardware"]
    assert "would compute at fp32 without saying so" in found["all_scores"]["openvino:CPU"]["excluded"]
    assert found["not_predicted"]["openvino:CPU"]["basis"].startswith("not supported here: ")


def test_a_calibration_of_the_slow_path_is_used(cache: Path) -> None:
    slow = replace(even_calibration("cpu", "fp16", threads=4), device_name=CHIP)
    save_calibration(slow, cache)
    found = ask(["AVX2"], "fp16")
    assert found["primary_recommendation"] == "cpu"
    assert found["predictions"]["cpu"]["source"] == "calibrated"


def test_the_data_sheet_of_another_cpu_says_nothing_of_half_precision() -> None:
    found = ask(["AVX512_BF16"], "bf16")
    assert "the data sheet of another CPU" in found["not_predicted"]["cpu"]["basis"]
    known = ask(["AVX512_BF16"], "bf16", name="AMD EPYC 9654 96-Core Processor")
    assert known["predictions"]["cpu"]["source"] == "datasheet"


def test_int8_without_its_packages_is_not_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hfaccel.hardware.precisions.find_spec", lambda _: None)
    found = ask(["AVX2"], "int8")
    assert found["primary_recommendation"] is None
    assert "int8 needs torchao" in found["all_scores"]["cpu"]["excluded"]
    assert "int8 needs nncf" in found["all_scores"]["openvino:CPU"]["excluded"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_openvino_itself_agrees_about_this_machine(dtype: str) -> None:
    from pytest_hfaccel.backends.openvino.precision import confirm_precision
    from pytest_hfaccel.core.errors import BackendUnavailable
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.hardware.precisions import precision_support

    device = Device("openvino", "CPU")
    presence = probe_devices().find(device)
    assert presence is not None
    try:
        confirm_precision(device, dtype)
        runs = True
    except BackendUnavailable:
        runs = False
    assert precision_support(presence, dtype).runs == runs


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_calibrated_prediction_is_within_half_of_what_is_measured(
    dtype: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json
    import statistics
    import time

    import torch
    import transformers

    from pytest_hfaccel.predict.calibration import calibrate

    monkeypatch.undo()
    monkeypatch.setenv("HFACCEL_CACHE", str(cache))
    taken = calibrate("cpu", dtype, threads=1)
    if taken.problem:
        pytest.skip(taken.problem)
    save_calibration(taken, cache)
    (tmp_path / "predictor.json").write_text('{"threads": 1}', encoding="utf-8")
    sizes = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1536}
    (tmp_path / "bert").mkdir()
    config = {"architectures": ["BertModel"], "model_type": "bert", **sizes}
    (tmp_path / "bert" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = HardwareModelPredictor(config_path=tmp_path / "predictor.json").predict_performance(
        str(tmp_path / "bert"), hardware="cpu", precision=dtype
    )["predictions"]["cpu"]
    model = transformers.BertModel(transformers.BertConfig(**sizes)).eval().to(taken_dtype(dtype))
    ids = torch.randint(5, 100, (1, 128))
    times = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(8):
                started = time.perf_counter()
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                times.append(1e3 * (time.perf_counter() - started))
    finally:
        torch.set_num_threads(threads)
    assert found["source"] == "calibrated"
    assert 1 / 1.5 < found["latency"] / statistics.median(times[1:]) < 1.5


def taken_dtype(dtype: str) -> Any:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
