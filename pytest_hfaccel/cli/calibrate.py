"""`hfaccel calibrate`: measure how fast the devices of this machine are at the operators models are made of."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.predict.calibration import DeviceCalibration

_DTYPES = ("fp32", "bf16", "fp16")


def add_parser(commands: Any) -> None:
    """Add `calibrate` to the parsers of `hfaccel`."""
    text = (
        "Measure each device for half a minute (up to two at a precision that a CPU emulates); predictions of models "
        "that were not measured rest on it."
    )
    parser = commands.add_parser("calibrate", help="measure how fast the devices of this machine are", description=text)
    parser.add_argument("--device", nargs="+", metavar="ID", help="devices (default: those of this machine)")
    parser.add_argument("--dtype", nargs="+", choices=_DTYPES, default=["fp32"], help="precisions (default: fp32)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own number)")
    parser.add_argument("--database", metavar="FILE", help="benchmark database to keep the calibrations in, too")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads: {arguments.threads} is not allowed. Wanted: 1 or more.")
    devices = arguments.device or _devices_here()
    failures = 0
    for device in devices:
        for dtype in arguments.dtype:
            try:
                taken = _calibrate(device, dtype, arguments.threads)
            except BackendUnavailable as error:
                print(f"{device} at {dtype}: {error}", file=sys.stderr)
                failures += 1
                continue
            _keep(taken, arguments.database)
            print(_line(taken))
            if taken.problem:
                print(f"hfaccel: {taken.problem}", file=sys.stderr)
    return int(failures > 0)


def _devices_here() -> list[str]:
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.predict.calibration.calibrating import CALIBRATED_KINDS

    return [device.id for device in probe_devices().present() if device.kind in CALIBRATED_KINDS]


def _calibrate(device: str, dtype: str, threads: int | None) -> DeviceCalibration:
    from pytest_hfaccel.predict.calibration import calibrate

    print(f"hfaccel: calibrating {device} at {dtype}; leave the machine alone meanwhile", file=sys.stderr)
    return calibrate(device, dtype, threads=threads, note=_note)


def _note(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K  {what}", end="", file=sys.stderr, flush=True)


def _keep(calibration: DeviceCalibration, database: str | None) -> None:
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.predict.calibration import save_calibration

    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    save_calibration(calibration, RunConfig.from_values({}).cache_dir)
    if database is not None:
        from pytest_hfaccel.history import BenchmarkDatabase

        BenchmarkDatabase(database).save_calibration(calibration)


def _line(calibration: DeviceCalibration) -> str:
    speed = f"{calibration.peak_flops / 1e9:,.0f} GFLOP/s, {calibration.bandwidth / 1e9:.1f} GB/s"
    device = f"{calibration.device} ({calibration.device_name}) at {calibration.dtype}, {calibration.threads} threads"
    took = f"{len(calibration.operators)} operators in {calibration.seconds:.0f} s"
    passes = calibration.noise.get("passes", 1)
    noise = f"; the same work varied by {calibration.disturbance:.0%}, measured {passes:.0f} time(s)"
    return f"{device}: {speed}, {1e6 * calibration.call_seconds:.0f} us per call; {took}{noise}"
