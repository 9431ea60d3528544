"""Calibrations of an invented device, for tests of what reads calibrations: its speed is known exactly."""

from __future__ import annotations

from pytest_hfaccel.predict.calibration.records import DeviceCalibration, TimedOperator

RATE = 50e9
"""Floating-point operations per second, at every size."""
SECONDS_PER_NUMBER = 1e-9
CALL, VIEW, MODULE = 1e-5, 1e-6, 5e-6

_MOVING = (
    *("add", "in_place", "copy", "permute", "gather", "masked", "gelu", "tanh"),
    *("layer_norm", "batch_norm", "softmax", "mean"),
)


def even_calibration(device: str = "cpu", dtype: str = "fp32", threads: int = 1) -> DeviceCalibration:
    """Return a calibration of a device that computes everything at the same rate."""
    operators = [
        *(_computing("linear", (m, n, k), 2 * m * n * k) for m in (1, 64) for n in (64, 1024) for k in (64, 1024)),
        *(_computing("bmm", (m, m, 64, 8), 16 * m * m * 64) for m in (16, 64, 256)),
        *(_computing("attention", (m, 64, 8), 32 * m * m * 64) for m in (16, 64, 256)),
        *(_computing("conv", (m, 64, 576, 1), 2 * m * 64 * 576) for m in (49, 3136, 12544)),
        *(_computing("depthwise", (m, 9), 18 * m) for m in (10_000, 100_000)),
        *(TimedOperator(kind, (n,), n * SECONDS_PER_NUMBER, 0, 8 * n) for kind in _MOVING for n in (1, 1000, 10**7)),
    ]
    return DeviceCalibration(
        device=device,
        device_name="an even device",
        dtype=dtype,
        threads=threads,
        taken="2026-11-21T10:00:00+00:00",
        seconds=1.0,
        versions={"torch": "2.13.0"},
        call_seconds=CALL,
        view_seconds=VIEW,
        module_seconds=MODULE,
        operators=tuple(operators),
    )


def _computing(kind: str, size: tuple[int, ...], flops: int) -> TimedOperator:
    return TimedOperator(kind, size, flops / RATE, flops, 4 * sum(size))
