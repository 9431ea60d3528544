"""Taking a calibration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pytest_hfaccel.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.predictor.calibration.records import DeviceCalibration
from pytest_hfaccel.spec import Device

DTYPES = ("fp32", "bf16", "fp16")
"""The dtypes a calibration can be taken at: int8 here means int8 weights, whose products run at one of these."""

_TORCH_KINDS = {"cpu": "cpu", "cuda": "cuda", "rocm": "cuda", "mps": "mps", "xpu": "xpu"}
_TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def calibrate(
    device: str, dtype: str = "fp32", *, threads: int | None = None, note: Callable[[str], None] = lambda _: None
) -> DeviceCalibration:
    """Measure how fast a device is at single operators. Takes 15 to 30 seconds.

    Args:
        device: Device id: `cpu`, `cuda:0`, `openvino:CPU`.
        dtype: One of `DTYPES`.
        threads: CPU threads; torch's own number when not given.
        note: Told what is measured next, for a progress display.

    Raises:
        ConfigError: The dtype cannot be calibrated, or the device is of a kind whose operators cannot be timed.
        BackendUnavailable: The device does not answer.
    """
    target = Device.parse(device)
    if dtype not in DTYPES:
        raise ConfigError(f"{dtype!r} cannot be calibrated. Allowed: {', '.join(DTYPES)}.")
    if target.kind != "openvino" and target.kind not in _TORCH_KINDS:
        kinds = ", ".join([*_TORCH_KINDS, "openvino"])
        raise ConfigError(f"{device}: operators of this kind of device cannot be timed. Allowed: {kinds}.")
    with _threads(threads) as used:
        started = time.perf_counter()
        take = _on_openvino if target.kind == "openvino" else _on_torch
        try:
            facts = take(target, dtype, used, note)
        except (RuntimeError, AssertionError) as error:
            # torch and OpenVINO both raise these when a device, or a dtype on it, is not to be had.
            raise BackendUnavailable(f"{device} cannot be calibrated at {dtype}: {error}", stage="run") from error
        return DeviceCalibration(
            device=target.id,
            dtype=dtype,
            threads=used,
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 2),
            **facts,
        )


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(wanted or before)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _on_torch(device: Device, dtype: str, _threads: int, note: Callable[[str], None]) -> dict[str, Any]:
    import torch

    from pytest_hfaccel.predictor.calibration.python_overhead import seconds_per_launch
    from pytest_hfaccel.predictor.calibration.torch_device import TorchOperators

    kind = _TORCH_KINDS[device.kind]
    name = f"{kind}:{device.target}" if device.target else kind
    timer = TorchOperators(name, getattr(torch, _TORCH_DTYPES[dtype]))
    operators = tuple(timer.measure(note))
    call, view = timer.overheads()
    facts: dict[str, Any] = {"operators": operators, "call_seconds": call, "view_seconds": view, "module_seconds": 0.0}
    note("the time Python takes between operators")
    versions = _versions("torch")
    known = DeviceCalibration(device.id, "", dtype, 1, "", 0.0, versions, **facts)
    facts["module_seconds"] = seconds_per_launch(known, name)
    return {"device_name": _torch_name(device, name), "versions": versions, **facts}


def _torch_name(device: Device, name: str) -> str:
    import torch

    if device.kind in ("cuda", "rocm"):
        return str(torch.cuda.get_device_name(name))
    if device.kind == "xpu":
        return str(torch.xpu.get_device_name(name))
    from pytest_hfaccel.hardware.cpu_facts import read_cpu

    return read_cpu().name


def _on_openvino(device: Device, dtype: str, threads: int, note: Callable[[str], None]) -> dict[str, Any]:
    from pytest_hfaccel.predictor.calibration.openvino_device import OpenVINOOperators

    timer = OpenVINOOperators(device.target, dtype, threads)
    operators = tuple(timer.measure(note))
    return {
        "device_name": timer.device_name,
        "versions": _versions("openvino"),
        "call_seconds": timer.call_seconds(),
        # A compiled graph has neither views nor Python between its operators.
        "view_seconds": 0.0,
        "module_seconds": 0.0,
        "operators": operators,
    }


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
