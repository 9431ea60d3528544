"""`hfaccel hardware`: what is here, what is not, and why not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport, Presence

_HEADINGS = ("device", "status", "name", "memory", "reason")


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's subparsers."""
    parser = commands.add_parser(
        "hardware",
        help="list the devices of this machine, with the reason for each one that is absent",
        description="List the devices of this machine: first by cheap signs (driver libraries, files), then by "
        "computing on each of them.",
    )
    parser.add_argument("--probe-only", action="store_true", help="only the cheap signs; loads no runtime")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the devices.

    Returns:
        0, or 1 when a device that seems to be here does not compute.
    """
    from pytest_hfaccel.hardware import confirm_devices, probe_devices

    report = probe_devices()
    confirmed = [] if arguments.probe_only else confirm_devices(report.present())
    if arguments.json:
        print(json.dumps({"probe": report.to_json(), "confirmed": [c.to_json() for c in confirmed]}, indent=2))
    else:
        print(format_devices(report, confirmed))
    return int(any(not presence.present for presence in confirmed))


def format_devices(report: HardwareReport, confirmed: Sequence[Presence] = ()) -> str:
    """Return a table with one line per device.

    Args:
        report: The first step.
        confirmed: The second step; empty when it was left out.
    """
    by_device = {presence.device: presence for presence in confirmed}
    rows = [_HEADINGS, *(_row(presence, by_device.get(presence.device)) for presence in report.presences)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join([*lines, "", f"A plain run tests on {report.best()}."])


def _row(probed: Presence, confirmed: Presence | None) -> tuple[str, ...]:
    last = confirmed or probed
    status = "absent" if not probed.present else "present" if confirmed is None else "confirmed"
    if confirmed is not None and not confirmed.present:
        status = "failed"
    reason = probed.reason if last.present else last.reason
    memory = last.memory_bytes or probed.memory_bytes
    return (probed.device.id, status, probed.name or last.name, _gigabytes(memory), reason)


def _gigabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**30:.1f} GiB"
