"""Taking a calibration."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Any

from pytest_hfaccel.benchmark.noise import noise_between, read_noise
from pytest_hfaccel.core.devices import BROWSER_KINDS, ONNX_KINDS, TORCH_KINDS, kind_of
from pytest_hfaccel.core.errors import (
    BackendUnavailable,
    ConfigError,
    DeviceCrashed,
    DeviceTimeout,
    LoadError,
    OutOfMemory,
)
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.predict.calibration.records import QUIET, DeviceCalibration, TimedOperator, disturbance_of

CALIBRATED_KINDS = (*TORCH_KINDS, "openvino", *ONNX_KINDS)
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
    if kind in ONNX_KINDS and dtype != "fp32":
        return f"{device} can be calibrated at fp32 only, not at {dtype}"
    return ""


LEAST_RUNS, MOST_RUNS = 5, 400
SECONDS = 0.05
FEWEST_RUNS, LONG_SECONDS = 3, 0.2
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
    return median_of(times, spreads)


def median_of(times: Sequence[float], spreads: list[float] | None = None) -> float:
    """Return the median of the seconds of runs; `spreads` gets what `median_seconds` says."""
    median = statistics.median(times)
    if spreads is not None:
        spreads.append(median / max(min(times), 1e-9) - 1)
    return median


def _goes_on(runs: int, seconds: float) -> bool:
    if runs < LEAST_RUNS:
        return runs < FEWEST_RUNS or seconds < LONG_SECONDS
    return seconds < SECONDS and runs < MOST_RUNS


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
    def _moving(self, rows: int, width: int) -> Iterable[tuple[str, Callable[[], float]]]:
        """Yield kinds of operators that move numbers, with a function that returns their seconds."""

    @abstractmethod
    def _norms(self, rows: int, width: int) -> Iterable[tuple[str, Callable[[], float]]]:
        """Yield kinds of normalisations, with a function that returns their seconds."""

    def _timed(
        self, kind: str, size: tuple[int, ...], time: Callable[[], float], flops: int, numbers: int
    ) -> Iterator[TimedOperator]:
        """Yield an operator with the seconds that `time` returns, or nothing where it cannot be timed."""
        yield TimedOperator(kind, size, time(), flops, numbers * self._bytes)

    def measure(self, note: Callable[[str], None]) -> Iterator[TimedOperator]:
        """Time every operator of `sizes`."""
        from pytest_hfaccel.predict.calibration import sizes

        note("matrix products")
        for m, n, k in sizes.LINEAR:
            numbers = m * k + n * k + m * n
            yield from self._timed("linear", (m, n, k), partial(self._linear, m, n, k), 2 * m * n * k, numbers)
        run: Callable[[], float]
        note("batched products")
        for m, n, k, count in sizes.BMM:
            numbers = count * (m * k + k * n + m * n)
            run = partial(self._bmm, m, n, k, count)
            yield from self._timed("bmm", (m, n, k, count), run, 2 * count * m * n * k, numbers)
        note("attention")
        for queries, width, heads in sizes.ATTENTION:
            flops, numbers = 4 * heads * queries * queries * width, 4 * heads * queries * width
            run = partial(self._attention, queries, width, heads)
            yield from self._timed("attention", (queries, width, heads), run, flops, numbers)
        note("convolutions")
        for batch, channels, side, out, window, groups, stride in (*sizes.CONV, *sizes.DEPTHWISE):
            padding = window // 2 if stride == 1 else 0
            yield from self._convolution((batch, channels, side, side), out, window, groups, stride, padding)
        for channels, samples, out, window, groups, stride in sizes.SOUND:
            padding = window // 2 if groups > 1 else 0
            yield from self._convolution((1, channels, samples), out, window, groups, stride, padding)
        note("copies and activations")
        for count in sizes.NUMBERS:
            rows, width = max(1, count // sizes.ROW), min(count, sizes.ROW)
            for kind, run in self._moving(rows, width):
                numbers = {"add": 3, "gather": self.gathered}.get(kind, 2) * rows * width
                yield from self._timed(kind, (rows * width,), run, 0, numbers)
        note("normalisations")
        for rows, width in sizes.NORMS:
            for kind, run in self._norms(rows, width):
                yield from self._timed(kind, (rows * width,), run, 0, 2 * rows * width)

    def _convolution(
        self, shape: tuple[int, ...], out: int, window: int, groups: int, stride: int, padding: int
    ) -> Iterator[TimedOperator]:
        sides = shape[2:]
        places = shape[0] * prod((side + 2 * padding - window) // stride + 1 for side in sides)
        depth = shape[1] // groups * window ** len(sides)
        run = partial(self._run_convolution, shape, out, (window,) * len(sides), groups, stride, padding)
        written = places * out
        flops, numbers = 2 * written * depth, prod(shape) + written + out * depth
        if out == groups:
            return self._timed("depthwise", (written, depth), run, flops, numbers)
        return self._timed("conv", (places, out // groups, depth, groups), run, flops, numbers)


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
        except (RuntimeError, AssertionError, DeviceCrashed, DeviceTimeout, LoadError, OutOfMemory) as error:
            # torch and OpenVINO both raise the first two when a device, or a dtype on it, is not available.
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
    if device.kind in BROWSER_KINDS:
        _require_onnx(device)
        from pytest_hfaccel.predict.calibration.browser_operators import PageTimer
        from pytest_hfaccel.predict.calibration.onnx_operators import OnnxOperators

        timer = OnnxOperators(PageTimer(device, threads), dtype)
    elif device.kind == "onnxruntime":
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
    overheads = {name: min(facts[name], again[name]) for name in facts if name.endswith("_seconds")}
    found: dict[tuple[str, tuple[int, ...]], TimedOperator] = {}
    for one in (*facts["operators"], *again["operators"]):  # one of them may have left an operator out
        known = found.setdefault((one.kind, one.size), one)
        found[one.kind, one.size] = min(known, one, key=lambda each: each.seconds)
    operators = tuple(found.values())
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
