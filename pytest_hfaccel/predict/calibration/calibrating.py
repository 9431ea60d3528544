"""Taking a calibration."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from math import prod
from typing import Any

from pytest_hfaccel.benchmark.noise import noise_between, read_noise
from pytest_hfaccel.core.devices import TORCH_KINDS, kind_of
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration.records import QUIET, DeviceCalibration, TimedOperator, disturbance_of

CALIBRATED_KINDS = (*TORCH_KINDS, "openvino", "onnxruntime")
"""The kinds of device whose operators can be timed; `why_not_calibrated` knows which devices of them cannot."""

DTYPES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number at the dtypes a calibration can be taken at; int8 weights are multiplied at one of these."""


def why_not_calibrated(device: str, dtype: str = "fp32") -> str:
    """Say why a device's operators cannot be timed at a precision, without a full stop; empty where they can.

    Args:
        device: Device id, or a kind of device.
        dtype: One of `pytest_hfaccel.core.spec.DTYPES`.
    """
    kind, target = kind_of(device), device.partition(":")[2]
    if kind not in CALIBRATED_KINDS:
        return f"{kind} cannot be calibrated"
    if dtype not in DTYPES:
        return f"{dtype!r} cannot be calibrated; allowed: {', '.join(DTYPES)}"
    if kind == "onnxruntime" and target not in ("", "CPU"):
        return f"{device} cannot be calibrated: of ONNX Runtime's providers, CPU alone can"
    if kind == "onnxruntime" and dtype != "fp32":
        return f"{device} can be calibrated at fp32 only, not at {dtype}"
    return ""


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
        spreads: Gets how far the median is above the fastest run, as a share: what others on the machine add to it.
    """
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


class OperatorTimer(ABC):
    """Times every operator of `sizes` on one device. A runtime says how an operator is run.

    Attributes:
        spreads: How far each median is above the operator's fastest run, as a share.
        gathered: Numbers that `gather` moves for each it writes: its indices count as one of 32 bits, or two.
    """

    gathered: int

    def __init__(self, dtype: str) -> None:
        self.spreads: list[float] = []
        self._bytes = DTYPES[dtype]

    @abstractmethod
    def facts(self, note: Callable[[str], None]) -> dict[str, Any]:
        """Measure everything and return the fields of `DeviceCalibration` from it; `note` hears what comes next."""

    @abstractmethod
    def _linear(self, rows: int, columns: int, depth: int) -> float:
        """Return the seconds of `x[rows, depth] @ w[columns, depth].T + b[columns]`, with weights from memory."""

    @abstractmethod
    def _bmm(self, rows: int, columns: int, depth: int, matrices: int) -> float:
        """Return the seconds of `x[matrices, rows, depth] @ y[matrices, depth, columns]`."""

    @abstractmethod
    def _attention(self, queries: int, width: int, heads: int) -> float:
        """Return the seconds of an attention of as many keys as queries."""

    @abstractmethod
    def _run_convolution(
        self, shape: tuple[int, ...], out: int, window: tuple[int, ...], groups: int, stride: int, padding: int
    ) -> float:
        """Return the seconds of a convolution of an input of a shape (batch, channels, then one or two sides)."""

    @abstractmethod
    def _moving(self, rows: int, width: int) -> Iterable[tuple[str, float]]:
        """Yield kinds of operators that move numbers, with their seconds."""

    @abstractmethod
    def _norms(self, rows: int, width: int) -> Iterable[tuple[str, float]]:
        """Yield kinds of normalisations, with their seconds."""

    def measure(self, note: Callable[[str], None]) -> Iterator[TimedOperator]:
        """Time every operator of `sizes`."""
        from pytest_hfaccel.predict.calibration import sizes

        note("matrix products")
        for m, n, k in sizes.LINEAR:
            yield self._timed("linear", (m, n, k), self._linear(m, n, k), 2 * m * n * k, m * k + n * k + m * n)
        note("batched products")
        for m, n, k, count in sizes.BMM:
            numbers = count * (m * k + k * n + m * n)
            yield self._timed("bmm", (m, n, k, count), self._bmm(m, n, k, count), 2 * count * m * n * k, numbers)
        note("attention")
        for queries, width, heads in sizes.ATTENTION:
            flops, numbers = 4 * heads * queries * queries * width, 4 * heads * queries * width
            seconds = self._attention(queries, width, heads)
            yield self._timed("attention", (queries, width, heads), seconds, flops, numbers)
        note("convolutions")
        for batch, channels, side, out, window, groups, stride in (*sizes.CONV, *sizes.DEPTHWISE):
            padding = window // 2 if stride == 1 else 0
            yield self._convolution((batch, channels, side, side), out, window, groups, stride, padding)
        for channels, samples, out, window, groups, stride in sizes.SOUND:
            padding = window // 2 if groups > 1 else 0
            yield self._convolution((1, channels, samples), out, window, groups, stride, padding)
        note("copies and activations")
        for count in sizes.NUMBERS:
            rows, width = max(1, count // sizes.ROW), min(count, sizes.ROW)
            for kind, seconds in self._moving(rows, width):
                numbers = {"add": 3, "gather": self.gathered}.get(kind, 2) * rows * width
                yield self._timed(kind, (rows * width,), seconds, 0, numbers)
        note("normalisations")
        for rows, width in sizes.NORMS:
            for kind, seconds in self._norms(rows, width):
                yield self._timed(kind, (rows * width,), seconds, 0, 2 * rows * width)

    def _convolution(
        self, shape: tuple[int, ...], out: int, window: int, groups: int, stride: int, padding: int
    ) -> TimedOperator:
        sides = shape[2:]
        places = shape[0] * prod((side + 2 * padding - window) // stride + 1 for side in sides)
        depth = shape[1] // groups * window ** len(sides)
        seconds = self._run_convolution(shape, out, (window,) * len(sides), groups, stride, padding)
        written = places * out
        flops, numbers = 2 * written * depth, prod(shape) + written + out * depth
        if out == groups:
            return self._timed("depthwise", (written, depth), seconds, flops, numbers)
        return self._timed("conv", (places, out // groups, depth, groups), seconds, flops, numbers)

    def _timed(self, kind: str, size: tuple[int, ...], seconds: float, flops: int, numbers: int) -> TimedOperator:
        return TimedOperator(kind, size, seconds, flops, numbers * self._bytes)


def calibrate(
    device: str, dtype: str = "fp32", *, threads: int | None = None, note: Callable[[str], None] = lambda _: None
) -> DeviceCalibration:
    """Measure how fast a device is at single operators.

    Takes 20 to 30 seconds on a CPU core, up to two minutes at a precision it has to emulate. Where the machine was
    disturbed (`DeviceCalibration.noise`), everything is measured once more, and each operator keeps its faster time.

    Args:
        device: Device id: `cpu`, `cuda:0`, `openvino:CPU`, `onnxruntime:CPU`.
        dtype: One of `DTYPES`; ONNX Runtime takes fp32 only.
        threads: CPU threads; torch's own number when not given.
        note: Told what is measured next, for a progress display.

    Raises:
        ConfigError: The dtype cannot be calibrated, or the device is of a kind whose operators cannot be timed.
        BackendUnavailable: The device does not answer.
    """
    target = Device.parse(device)
    if target.kind not in CALIBRATED_KINDS:
        kinds = ", ".join(CALIBRATED_KINDS)
        raise ConfigError(f"{device}: operators of this kind of device cannot be timed. Allowed: {kinds}.")
    if problem := why_not_calibrated(target.id, dtype):
        raise ConfigError(f"{problem}.")
    with _threads(threads) as used:
        started = time.perf_counter()
        try:
            facts, noise = _measured(target, dtype, used, note)
            if disturbance_of(noise) > QUIET:
                note("everything once more, because the machine was busy")
                again, noise_again = _measured(target, dtype, used, note)
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
    device: Device, dtype: str, threads: int, note: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what was measured, and what the machine did meanwhile (`DeviceCalibration.noise`)."""
    before = read_noise(device.id)
    timer: OperatorTimer
    if device.kind == "onnxruntime":
        _require_onnx(device)
        from pytest_hfaccel.predict.calibration.onnx_operators import OnnxOperators, OnnxRuntimeTimer

        timer = OnnxOperators(OnnxRuntimeTimer(device), dtype)
    elif device.kind == "openvino":
        from pytest_hfaccel.predict.calibration.openvino_operators import OpenVINOOperators

        timer = OpenVINOOperators(device.target, dtype, threads)
    else:
        from pytest_hfaccel.predict.calibration.torch_operators import TorchOperators

        timer = TorchOperators(device, dtype)
    facts = timer.facts(note)
    loop = noise_between(before, read_noise(device.id))
    spread = statistics.median(timer.spreads) if timer.spreads else 0.0
    return facts, {"spread": spread, "drift": loop.drift, "loop_spread": loop.iqr_share, "passes": 1}


def _require_onnx(device: Device) -> None:
    """Make sure that graphs can be written here, and run.

    Raises:
        BackendUnavailable: A package is not installed.
    """
    from pytest_hfaccel.backends.exported.onnx_programs import INSTALL, require_packages

    require_packages(device.id)
    if device.kind == "onnxruntime" and find_spec("onnxruntime") is None:
        raise BackendUnavailable(f"{device}: onnxruntime is not installed.", hint=f"{INSTALL} installs it.")


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
