"""Calibrations: taken on the real CPU, kept, read back, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.predict.calibration import (
    DeviceCalibration,
    calibrate,
    load_calibrations,
    save_calibration,
    sizes,
)
from tests.unit.calibrations import even_calibration


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


def test_a_calibration_of_another_format_is_refused() -> None:
    data = {**even_calibration().to_json(), "format": 99}
    with pytest.raises(ValueError, match="format 99"):
        DeviceCalibration.from_json(data)


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be kept"):
        save_calibration(even_calibration(), tmp_path)


def test_peak_and_bandwidth_come_from_the_operators() -> None:
    calibration = even_calibration()
    assert calibration.peak_flops == pytest.approx(50e9)
    assert calibration.bandwidth == pytest.approx(8e9)


@pytest.mark.parametrize(
    ("device", "dtype", "message"), [("webgpu", "fp32", "cannot be timed"), ("cpu", "int8", "int8")]
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


@pytest.mark.slow
@pytest.mark.usefixtures("few_sizes")
@pytest.mark.parametrize("device", ["cpu", "openvino:CPU"])
def test_a_device_that_is_here_is_measured(device: str) -> None:
    heard: list[str] = []
    calibration = calibrate(device, threads=1, note=heard.append)
    assert (calibration.device, calibration.threads) == (device, 1)
    assert {one.kind for one in calibration.operators} >= {"linear", "bmm", "attention", "conv", "depthwise", "copy"}
    assert all(one.seconds > 0 for one in calibration.operators)
    assert len({one.seconds for one in calibration.operators}) > 10
    assert heard
    assert DeviceCalibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


@pytest.mark.slow
def test_an_absent_device_is_unavailable_and_the_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: nothing is absent here that torch could be asked for")
    with pytest.raises(BackendUnavailable, match="cuda:0 cannot be calibrated"):
        calibrate("cuda:0", threads=1)
    assert torch.get_num_threads() == before
