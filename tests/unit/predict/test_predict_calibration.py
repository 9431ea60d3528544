"""Calibrations of devices, and the roofline that adds up their operators."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends.browser.installed import probe_browsers
from pytest_hfaccel.core.devices import BROWSER_KINDS
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError, LoadError
from pytest_hfaccel.core.prediction import Question, Source
from pytest_hfaccel.predict.calibration import (
    DeviceCalibration,
    calibrate,
    load_calibrations,
    save_calibration,
    sizes,
)
from pytest_hfaccel.predict.calibration.records import TimedOperator
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline, Rates, Times
from pytest_hfaccel.predict.layers.roofline import CalibratedLayer, CorrectedLayer
from pytest_hfaccel.tracing.trace import ModelTrace, Operator
from tests.unit.predict.predict_samples import (
    CALL,
    MODULE,
    RATE,
    SECONDS_PER_NUMBER,
    VIEW,
    block_trace,
    even_calibration,
)


def test_a_kept_calibration_is_read_back_equal(tmp_path: Path) -> None:
    calibration = even_calibration()
    save_calibration(calibration, tmp_path)
    assert load_calibrations(tmp_path) == [calibration]


def test_calibrations_of_other_dtypes_threads_and_devices_do_not_replace_each_other(tmp_path: Path) -> None:
    kept = [
        even_calibration(),
        even_calibration(dtype="bf16"),
        even_calibration(threads=2),
        even_calibration("openvino:CPU"),
    ]
    for calibration in kept:
        save_calibration(calibration, tmp_path)
    assert len(load_calibrations(tmp_path)) == len(kept)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 1}'])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, text: str) -> None:
    file = save_calibration(even_calibration(), tmp_path)
    file.write_text(text)
    assert load_calibrations(tmp_path) == []


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be stored"):
        save_calibration(even_calibration(), tmp_path)


def test_peak_and_bandwidth_come_from_the_operators() -> None:
    calibration = even_calibration()
    assert calibration.peak_flops == pytest.approx(50e9)
    assert calibration.bandwidth == pytest.approx(8e9)


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("executorch", "fp32", "cannot be timed"),
        ("cpu", "int8", "int8"),
        ("onnxruntime:CPU", "fp16", "onnxruntime:CPU can be calibrated at fp32 only, not at fp16"),
        ("wasm", "bf16", "wasm can be calibrated at fp32 only, not at bf16"),
        ("webgpu", "fp16", "webgpu can be calibrated at fp32 only, not at fp16"),
        ("onnxruntime:CUDA", "fp32", "of ONNX Runtime's providers, CPU alone can"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(device: str, dtype: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calibrate(device, dtype)


@pytest.fixture
def few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One or two sizes of each kind: the real code on the real device, in a second."""
    for name, value in {
        "LINEAR": ((1, 64, 64), (32, 64, 64)),
        "BMM": ((8, 8, 16, 4),),
        "ATTENTION": ((8, 16, 4),),
        "CONV": ((1, 3, 16, 8, 3, 1, 1),),
        "DEPTHWISE": ((1, 8, 16, 8, 3, 8, 1),),
        "SOUND": ((8, 64, 8, 4, 2, 1),),
        "NUMBERS": (1, 1000),
        "NORMS": ((8, 64),),
    }.items():
        monkeypatch.setattr(sizes, name, value)


_ABSENT = {presence.device.kind: presence.reason for presence in probe_browsers() if not presence.present}


def in_browser(kind: str) -> Any:
    return pytest.param(kind, marks=pytest.mark.skipif(kind in _ABSENT, reason=f"no {kind}: {_ABSENT.get(kind)}"))


KINDS = {
    *("linear", "bmm", "attention", "conv", "depthwise", "add", "in_place", "copy", "permute", "gather", "masked"),
    *("gelu", "tanh", "layer_norm", "softmax", "batch_norm", "mean"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("few_sizes")
@pytest.mark.parametrize("device", ["cpu", "openvino:CPU", "onnxruntime:CPU", *map(in_browser, BROWSER_KINDS)])
def test_a_device_that_is_here_is_measured(device: str) -> None:
    heard: list[str] = []
    calibration = calibrate(device, threads=1, note=heard.append)
    assert (calibration.device, calibration.threads) == (device, 1)
    assert {one.kind for one in calibration.operators} == KINDS
    assert all(one.seconds > 0 for one in calibration.operators)
    assert len({one.seconds for one in calibration.operators}) > 10
    assert heard
    assert calibration.versions
    assert OperatorRoofline(calibration).seconds(trace(LINEAR, CONV)) > calibration.call_seconds
    assert DeviceCalibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.current_transformers
def test_a_browser_that_is_not_here_is_unavailable_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HFACCEL_NODE_MODULES", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="npm install onnxruntime-web"):
        calibrate("wasm", threads=1)


class FixedTimer:
    """Gives each graph the time of its products at a fixed pace; has no room for large constants."""

    def __init__(self) -> None:
        self.device_name = "a slow device"
        self.versions = {"a runtime": "1"}
        self.details: dict[str, Any] = {"implementation": "emulated"}
        self.limit_s: float | None = 1.0
        self.closed = False

    def seconds(self, model: Any, spreads: list[float] | None = None) -> float:  # noqa: ARG002
        numbers: int = max(prod(weight.dims) for weight in model.graph.initializer)
        if numbers > 10**6:
            raise LoadError("no room")
        return 1e-5 + 1e-6 * numbers

    def close(self) -> None:
        self.closed = True


@pytest.mark.slow
@pytest.mark.usefixtures("few_sizes")
def test_what_would_take_too_long_or_does_not_fit_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_hfaccel.predict.calibration.onnx_operators import OnnxOperators

    monkeypatch.setattr(sizes, "LINEAR", ((1, 64, 64), (4096, 64, 64), (1, 2000, 1000)))
    timer = FixedTimer()
    facts = OnnxOperators(timer, "fp32").facts(lambda _: None)
    assert [one.size for one in facts["operators"] if one.kind == "linear"] == [(1, 64, 64)]
    assert {one.kind for one in facts["operators"]} == KINDS
    too_long, too_large = (each for each in facts["details"]["left_out"] if each.startswith("linear"))
    assert too_long.startswith("linear (4096, 64, 64): it would take ")
    assert too_large == "linear (1, 2000, 1000): no room"
    assert facts["details"]["implementation"] == "emulated"
    assert timer.closed


@pytest.mark.slow
def test_an_absent_device_is_unavailable_and_the_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: nothing is absent here that torch could be asked for")
    with pytest.raises(BackendUnavailable, match="cuda:0 cannot be calibrated"):
        calibrate("cuda:0", threads=1)
    assert torch.get_num_threads() == before


def trace(*operators: Operator, batch: int = 1) -> ModelTrace:
    return ModelTrace("BertModel", batch, 8, "fp32", False, 10, 40, 40, 100, 10, operators)


def numbers(count: int) -> int:
    return 4 * count


LINEAR = Operator("addmm", ((64,), (16, 32), (32, 64)), (16, 64), 2 * 16 * 32 * 64, 0, 0)
BATCHED = Operator("bmm", ((8, 16, 64), (8, 64, 16)), (8, 16, 16), 2 * 8 * 16 * 64 * 16, 0, 0)
ATTENTION = Operator("_scaled_dot_product_flash_attention_for_cpu", ((1, 8, 16, 64),) * 3, (1, 8, 16, 64), 10**6, 0, 0)
CONV = Operator("convolution", ((1, 64, 7, 7), (64, 64, 3, 3)), (1, 64, 7, 7), 2 * 49 * 64 * 576, 0, 0)
DEPTHWISE = Operator("convolution", ((1, 64, 7, 7), (64, 1, 3, 3)), (1, 64, 7, 7), 2 * 49 * 64 * 9, 0, 0, groups=64)


@pytest.mark.parametrize(
    ("operator", "group"),
    [(LINEAR, "matrix"), (BATCHED, "bmm"), (ATTENTION, "attention"), (CONV, "conv"), (DEPTHWISE, "depthwise")],
)
def test_an_operator_that_computes_takes_its_operations_at_the_measured_rate(operator: Operator, group: str) -> None:
    breakdown = OperatorRoofline(even_calibration()).breakdown(trace(operator))
    assert breakdown[group] == pytest.approx(operator.flops / RATE, rel=1e-3)
    assert sum(breakdown.values()) == breakdown[group]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("gelu", "activation"),
        ("clone", "copy"),
        ("native_layer_norm", "norm"),
        ("_softmax", "softmax"),
        ("mul_", "other"),
        ("something_new", "other"),
    ],
)
def test_an_operator_that_moves_numbers_takes_the_time_of_one_like_it(name: str, group: str) -> None:
    operator = Operator(name, ((1000,),), (1000,), 0, numbers(1000), numbers(1000))
    breakdown = OperatorRoofline(even_calibration()).breakdown(trace(operator))
    assert breakdown[group] == pytest.approx(1000 * SECONDS_PER_NUMBER)


def test_views_and_launches_have_their_own_time() -> None:
    view = Operator("view", ((8,),), (8,), 0, 0, 0, is_view=True, count=10)
    twice = Operator("add", ((1000,), (1000,)), (1000,), 0, numbers(2000), numbers(1000), count=2)
    seconds = OperatorRoofline(even_calibration()).seconds(trace(view, twice))
    assert seconds == pytest.approx(CALL + 10 * VIEW + 2 * MODULE + 2 * 1000 * SECONDS_PER_NUMBER)


def test_half_precision_has_half_the_bytes_of_a_number() -> None:
    operator = Operator("gelu", ((1000,),), (1000,), 0, 2 * 1000, 2 * 1000)
    half = ModelTrace("BertModel", 1, 8, "bf16", False, 10, 20, 20, 50, 5, (operator,))
    breakdown = OperatorRoofline(even_calibration(dtype="bf16")).breakdown(half)
    assert breakdown["activation"] == pytest.approx(1000 * SECONDS_PER_NUMBER)


def test_rates_agree_with_what_was_measured_and_lie_between_it() -> None:
    timed = [TimedOperator("linear", (1, 64, 64), 1e-6, 10**4), TimedOperator("linear", (64, 64, 64), 1e-6, 10**6)]
    rates = Rates(timed, (0, 1, 2))
    assert rates.at((1, 64, 64)) == pytest.approx(1e10, rel=0.05)
    assert rates.at((64, 64, 64)) == pytest.approx(1e12, rel=0.05)
    assert 1e10 < rates.at((8, 64, 64)) < 1e12


@pytest.mark.parametrize("device", ["onnxruntime:CPU", "wasm", "cpu"])
def test_onnx_graphs_copy_what_torch_only_views_and_merge_normalisations_of_batches(device: str) -> None:
    view = Operator("transpose", ((1, 8, 4, 16),), (1, 4, 8, 16), 0, 0, 0, is_view=True)
    norm = Operator("native_batch_norm", ((1, 8, 8, 8),), (1, 8, 8, 8), 0, numbers(512), numbers(512))
    breakdown = OperatorRoofline(even_calibration(device)).breakdown(trace(view, norm))
    copied, merged = (512 * SECONDS_PER_NUMBER, 0.0) if device != "cpu" else (0.0, 512 * SECONDS_PER_NUMBER)
    assert breakdown["copy"] == pytest.approx(copied)
    assert breakdown["norm"] == pytest.approx(merged)


def test_times_grow_in_proportion_beyond_the_largest_size() -> None:
    times = Times([TimedOperator("copy", (10,), 1e-6), TimedOperator("copy", (1000,), 1e-4)])
    assert times.at(10_000) == pytest.approx(1e-3)
    assert times.at(0) == pytest.approx(1e-6)
    assert times.at(100) == pytest.approx(1e-5)


def test_the_layer_answers_for_its_device_and_dtype_and_says_what_it_rests_on() -> None:
    layer = CalibratedLayer([even_calibration()])
    found = layer.predict(Question("BertModel", "cpu"), trace(LINEAR))
    assert found is not None
    assert found.source == Source.CALIBRATED
    assert "an even device" in found.basis
    assert found.latency_ms is not None
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    assert layer.predict(Question("BertModel", "cpu", dtype="fp16"), trace(LINEAR)) is None
    assert layer.predict(Question("BertModel", "cuda"), trace(LINEAR)) is None
    assert layer.predict(Question("BertModel", "cpu"), None) is None
    assert "hfaccel calibrate" in layer.why_not(Question("BertModel", "cuda"))


def test_intervals_are_wider_where_fewer_models_were_measured() -> None:
    def width(device: str) -> float:
        found = CalibratedLayer([even_calibration(device)]).predict(Question("BertModel", device), trace(LINEAR))
        assert found is not None
        assert found.latency_ms is not None
        return found.latency_ms.high / found.latency_ms.low

    assert width("cpu") < width("onnxruntime:CPU") < width("wasm")


def test_the_calibration_with_as_many_threads_is_preferred() -> None:
    layer = CalibratedLayer([even_calibration(threads=8), even_calibration(threads=2)], threads=2)
    found = layer.predict(Question("BertModel", "cpu"), trace(LINEAR))
    assert found is not None
    assert "2 threads" in found.basis


def test_corrections_that_come_with_the_package_are_ratios_to_the_roofline() -> None:
    trace = block_trace("GPT2LMHeadModel", {}, batch=2, length=64)
    plain = CalibratedLayer([even_calibration("cpu")]).predict(Question("GPT2LMHeadModel", "cpu"), trace)
    layer = CorrectedLayer([even_calibration("cpu"), even_calibration("cpu", "bf16"), even_calibration("cuda:0")])
    found = layer.predict(Question("GPT2LMHeadModel", "cpu"), trace)
    assert plain is not None
    assert plain.latency_ms is not None
    assert found is not None
    assert found.latency_ms is not None
    assert found.source == Source.LEARNED
    assert 0.7 < found.latency_ms.value / plain.latency_ms.value < 1.3
    assert found.latency_ms.low < found.latency_ms.value < found.latency_ms.high
    assert "164 rows of 24 kinds of models on an AMD EPYC" in found.basis
    assert found.rows == 0
    asked = Question("GPT2LMHeadModel", "cpu")
    for question in (replace(asked, dtype="bf16"), replace(asked, training=True), replace(asked, device="cuda:0")):
        assert layer.predict(question, trace) is None
        assert "fp32 inference on cpu, openvino:CPU" in layer.why_not(question)
