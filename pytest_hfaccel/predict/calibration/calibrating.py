"""Taking a calibration."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pytest_hfaccel.benchmark.noise import noise_between, read_noise
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration.records import QUIET, DeviceCalibration, disturbance_of

_WARM_UP = 1
_LEAST_RUNS, _MOST_RUNS = 5, 400
_SECONDS = 0.05
_FEWEST_RUNS, _LONG_SECONDS = 3, 0.2
"""An operator that takes long is less disturbed in proportion: three runs of it will do."""


def median_seconds(
    run: Callable[[], Any], finish: Callable[[], Any] = lambda: None, spreads: list[float] | None = None
) -> float:
    """Return the median time of a call.

    Args:
        run: Does the work, or starts it on an accelerator.
        finish: Waits until the device is done.
        spreads: Given how far the median is above the fastest run, as a share: what others on the machine add to it.
    """
    for _ in range(_WARM_UP):
        run()
    finish()
    times: list[float] = []
    began = time.perf_counter()
    while _goes_on(len(times), time.perf_counter() - began):
        started = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - started)
    median = statistics.median(times)
    if spreads is not None:
        spreads.append(median / max(min(times), 1e-9) - 1)
    return median


def _goes_on(runs: int, seconds: float) -> bool:
    if runs < _LEAST_RUNS:
        return runs < _FEWEST_RUNS or seconds < _LONG_SECONDS
    return seconds < _SECONDS and runs < _MOST_RUNS


CALIBRATED_KINDS = (*TORCH_KINDS, "openvino")
"""The kinds of device whose operators can be timed."""

DTYPES = ("fp32", "bf16", "fp16")
"""The dtypes a calibration can be taken at: int8 here means int8 weights, whose products run at one of these."""

_TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def calibrate(
    device: str, dtype: str = "fp32", *, threads: int | None = None, note: Callable[[str], None] = lambda _: None
) -> DeviceCalibration:
    """Measure how fast a device is at single operators.

    Takes 20 to 30 seconds on a CPU core, up to two minutes at a precision it has to emulate. Where the machine was
    disturbed (`DeviceCalibration.noise`), everything is measured once more, and each operator keeps its faster time.

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
    if target.kind not in CALIBRATED_KINDS:
        kinds = ", ".join(CALIBRATED_KINDS)
        raise ConfigError(f"{device}: operators of this kind of device cannot be timed. Allowed: {kinds}.")
    with _threads(threads) as used:
        started = time.perf_counter()
        take = _on_openvino if target.kind == "openvino" else _on_torch
        try:
            facts, noise = _measured(lambda: take(target, dtype, used, note), target)
            if disturbance_of(noise) > QUIET:
                note("everything once more, because the machine was busy")
                again, noise_again = _measured(lambda: take(target, dtype, used, note), target)
                facts = _faster(facts, again)
                quieter = noise if disturbance_of(noise) <= disturbance_of(noise_again) else noise_again
                noise = {**quieter, "passes": 2}
        except (RuntimeError, AssertionError) as error:
            # torch and OpenVINO both raise these when a device, or a dtype on it, is not available.
            raise BackendUnavailable(f"{device} cannot be calibrated at {dtype}: {error}", stage="run") from error
        return DeviceCalibration(
            device=target.id,
            dtype=dtype,
            threads=used,
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 2),
            noise=noise,
            **facts,
        )


def _measured(
    take: Callable[[], tuple[dict[str, Any], list[float]]], device: Device
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what was measured, and what the machine did meanwhile (`DeviceCalibration.noise`)."""
    before = read_noise(device.id)
    facts, spreads = take()
    loop = noise_between(before, read_noise(device.id))
    spread = statistics.median(spreads) if spreads else 0.0
    return facts, {"spread": spread, "drift": loop.drift, "loop_spread": loop.iqr_share, "passes": 1}


def _faster(facts: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """Return the faster of two measurements of everything: others on the machine only ever add time."""
    pairs = zip(facts["operators"], again["operators"], strict=True)
    overheads = {name: min(facts[name], again[name]) for name in facts if name.endswith("_seconds")}
    operators = tuple(min(pair, key=lambda one: one.seconds) for pair in pairs)
    return {**facts, **overheads, "operators": operators}


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(wanted or before)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _on_torch(
    device: Device, dtype: str, _threads: int, note: Callable[[str], None]
) -> tuple[dict[str, Any], list[float]]:
    import torch

    from pytest_hfaccel.predict.calibration.torch_operators import TorchOperators, seconds_per_launch

    name = device.torch_name
    timer = TorchOperators(name, getattr(torch, _TORCH_DTYPES[dtype]))
    operators = tuple(timer.measure(note))
    call, view = timer.overheads()
    facts: dict[str, Any] = {"operators": operators, "call_seconds": call, "view_seconds": view, "module_seconds": 0.0}
    note("the time Python takes between operators")
    versions = _versions("torch")
    known = DeviceCalibration(device.id, "", dtype, 1, "", 0.0, versions, **facts)
    facts["module_seconds"] = seconds_per_launch(known, name)
    return {"device_name": _torch_name(device, name), "versions": versions, **facts}, timer.spreads


def _torch_name(device: Device, name: str) -> str:
    import torch

    if device.kind in ("cuda", "rocm"):
        return str(torch.cuda.get_device_name(name))
    if device.kind == "xpu":
        return str(torch.xpu.get_device_name(name))
    from pytest_hfaccel.hardware.cpu import read_cpu

    return read_cpu().name


def _on_openvino(
    device: Device, dtype: str, threads: int, note: Callable[[str], None]
) -> tuple[dict[str, Any], list[float]]:
    from pytest_hfaccel.predict.calibration.openvino_operators import OpenVINOOperators

    timer = OpenVINOOperators(device.target, dtype, threads)
    operators = tuple(timer.measure(note))
    facts = {
        "device_name": timer.device_name,
        "versions": _versions("openvino"),
        "call_seconds": timer.call_seconds(),
        # A compiled graph has neither views nor Python between its operators.
        "view_seconds": 0.0,
        "module_seconds": 0.0,
        "operators": operators,
    }
    return facts, timer.spreads


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
