"""`hfaccel hardware` and `calibrate`: which devices are present, why others are absent, and how fast they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.cli.results.compatibility import evidence_text
from pytest_hfaccel.core.devices import BROWSER_KINDS, COMPILERS, kind_named
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.reporting.tables import format_table

if TYPE_CHECKING:
    from pytest_hfaccel.cli.progress import StepProgress
    from pytest_hfaccel.hardware import HardwareReport, Presence
    from pytest_hfaccel.predict.calibration import DeviceCalibration


_HEADINGS = ("device", "status", "name", "memory", "reason")
_DTYPES = ("fp32", "bf16", "fp16")


def add_parser(commands: Any) -> None:
    """Add `hardware` and `calibrate` to the parsers of `hfaccel`."""
    parser = commands.add_parser(
        "hardware",
        help="list the devices of this machine, with the reason for each one that is absent",
        description="List the devices of this machine: first look for driver libraries and files, then compute "
        "something on each device found.",
    )
    parser.add_argument(
        "--probe-only", action="store_true", help="look for driver libraries and files only; load no runtime"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_registry(parser)
    parser.set_defaults(run=_list)

    text = (
        "Measure each device for half a minute (up to two minutes at a precision that a CPU emulates, and minutes in a "
        "browser, which has to be named). Predictions for models that were not measured are based on it."
    )
    parser = commands.add_parser("calibrate", help="measure how fast the devices of this machine are", description=text)
    parser.add_argument(
        "--device", nargs="+", metavar="ID", help="devices (default: those of this machine, without browsers)"
    )
    parser.add_argument("--dtype", nargs="+", choices=_DTYPES, default=["fp32"], help="precisions (default: fp32)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's own number)")
    parser.add_argument("--database", metavar="FILE", help="benchmark database to store the calibrations in as well")
    _add_registry(parser)
    parser.set_defaults(run=_calibrate)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry", action="append", metavar="FILE", help="registry file that describes further devices"
    )


def _list(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.hardware import confirm_devices, probe_devices

    report = probe_devices()
    confirmed = [] if arguments.probe_only else confirm_devices(report.present())
    compiled = [] if arguments.probe_only else confirm_devices(_compiled(report))
    measured = _measured()
    if arguments.json:
        shown = [presence.to_json() for presence in confirmed]
        print_json(
            {
                "probe": report.to_json(),
                "confirmed": shown,
                "compiled": [presence.to_json() for presence in compiled],
                "measured": measured,
            }
        )
    else:
        print(format_devices(report, confirmed))
        if compiled:
            print("\nWith torch.compile, where they are named (--hf-device):")
            for presence in compiled:
                print(f"  {presence.device}: {'can compile' if presence.present else presence.reason}")
        if measured:
            print("\nMeasured by earlier runs (`hfaccel compatibility` shows the families of models):")
        for device, found in measured.items():
            print(f"  {device}: {evidence_text(found)}")
    # A device that seems to be present and does not compute is a problem.
    return int(any(not presence.present for presence in confirmed))


def _compiled(report: HardwareReport) -> list[Device]:
    """Return the devices of this machine with each compiler that they may have."""
    return [
        Device(f"{device.kind}+{compiler}", device.target)
        for device in report.present()
        if kind_named(device.kind).backend == "torch"
        for compiler in COMPILERS
    ]


def _measured() -> dict[str, dict[str, Any]]:
    """Return what the runs of this project have measured, by device (`CompatibilityMatrix.by_device`)."""
    from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

    return HardwareAwareModelClassifier().matrix.by_device()


def format_devices(report: HardwareReport, confirmed: Sequence[Presence] = ()) -> str:
    """Return a table with a line per device of a report; `confirmed` says which of them could compute."""
    by_device = {presence.device: presence for presence in confirmed}
    rows = [_HEADINGS, *(_row(presence, by_device.get(presence.device)) for presence in report.presences)]
    return "\n".join([*format_table(rows), "", f"A plain run tests on {report.best()}."])


def _row(probed: Presence, confirmed: Presence | None) -> tuple[str, ...]:
    last = confirmed or probed
    status = "absent" if not probed.present else "present" if confirmed is None else "confirmed"
    if confirmed is not None and not confirmed.present:
        status = "failed"
    elif last.details.get("implementation") == "emulated":
        status = "emulated"
    reason = probed.reason if last.present else last.reason
    memory = last.memory_bytes or probed.memory_bytes
    gigabytes = "" if memory is None else f"{memory / 2**30:.1f} GiB"
    return (probed.device.id, status, probed.name or last.name, gigabytes, reason)


def _calibrate(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads: {arguments.threads} is not allowed. Wanted: 1 or more.")
    from pytest_hfaccel.cli.progress import StepProgress
    from pytest_hfaccel.hardware import probe_devices
    from pytest_hfaccel.predict.calibration.calibrating import why_not_calibrated

    calibrated = list(product(arguments.device or (), arguments.dtype))
    if not arguments.device:
        present = [device.id for device in probe_devices().present() if device.kind not in BROWSER_KINDS]
        calibrated = [pair for pair in product(present, arguments.dtype) if not why_not_calibrated(*pair)]
    with StepProgress(len(calibrated), "calibrations") as progress:
        failures = sum(not _calibrate_one(device, dtype, arguments, progress) for device, dtype in calibrated)
    return int(failures > 0)


def _calibrate_one(device: str, dtype: str, arguments: argparse.Namespace, progress: StepProgress) -> bool:
    """Calibrate a device at a precision; return whether that was possible."""
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.predict.calibration import calibrate, save_calibration

    what = f"{device} at {dtype}"
    print(f"hfaccel: calibrating {what}; do not use the machine until it is done", file=sys.stderr)
    progress.begin(what)
    try:
        calibration = calibrate(
            device, dtype, threads=arguments.threads, note=lambda detail: progress.begin(what, detail)
        )
    except BackendUnavailable as error:
        print(f"{what}: {error}", file=sys.stderr)
        return False
    finally:
        progress.finish()
    save_calibration(calibration, RunConfig.from_values({}).cache_dir)
    if arguments.database is not None:
        from pytest_hfaccel.history import BenchmarkDatabase

        BenchmarkDatabase(arguments.database).save_calibration(calibration)
    print(_line(calibration))
    if calibration.problem:
        print(f"hfaccel: {calibration.problem}", file=sys.stderr)
    return True


def _line(calibration: DeviceCalibration) -> str:
    speed = f"{calibration.peak_flops / 1e9:,.0f} GFLOP/s, {calibration.bandwidth / 1e9:.1f} GB/s"
    device = f"{calibration.device} ({calibration.device_name}) at {calibration.dtype}, {calibration.threads} threads"
    took = f"{len(calibration.operators)} operators in {calibration.seconds:.0f} s"
    passes = calibration.noise.get("passes", 1)
    noise = f"; the same work varied by {calibration.disturbance:.0%}, measured {passes:.0f} time(s)"
    return f"{device}: {speed}, {1e6 * calibration.call_seconds:.0f} us per call; {took}{noise}"
