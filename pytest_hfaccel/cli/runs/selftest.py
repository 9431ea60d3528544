"""`hfaccel selftest`: do the checks catch known defects on the devices of this machine?"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import devices_of, print_json
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.selftest import Verdict


def add_parser(commands: Any) -> None:
    """Add the subcommand to argparse's subparsers."""
    parser = commands.add_parser(
        "selftest",
        help="plant known defects on the devices of this machine and verify that each is caught",
        description="Run this before you trust a green matrix. Known defects are planted in models, backends, "
        "checkpoints, placement, memory, generation, reference and checks; each must be caught. The exit code is 1 if "
        "one is not.",
    )
    parser.add_argument(
        "--device", action="append", default=[], metavar="X,...", help="devices to test; may be repeated (default: all)"
    )
    parser.add_argument(
        "-n",
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="test so many devices at a time, each in a process of its own; a device is printed when it is done "
        "(default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what became of each defect.

    Returns:
        0, or 1 when a defect was not caught or could not be planted, or when a right model does not pass.
    """
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.selftest import BLIND_SPOTS, self_test, self_test_in_processes

    if arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}: nothing would run.", hint="Give a number from 1.")
    devices = devices_of(arguments.device)
    verdicts: list[Verdict] = []
    if not arguments.json:
        print(_row("defect", "device", "", "by"))
    config, started = RunConfig.from_values({}), time.perf_counter()
    tested = (
        self_test_in_processes(config, devices, arguments.workers)
        if arguments.workers > 1
        else self_test(config, devices)
    )
    for verdict in tested:
        verdicts.append(verdict)
        if not arguments.json:
            _print(verdict)
    bad = [verdict for verdict in verdicts if verdict.is_bad]
    if arguments.json:
        rows = [{**asdict(verdict), "is_bad": verdict.is_bad} for verdict in verdicts]
        print_json({"passed": not bad, "verdicts": rows, "blind_spots": BLIND_SPOTS})
        return int(bool(bad))
    seconds = time.perf_counter() - started
    caught = sum(verdict.found == "caught" for verdict in verdicts)
    print(f"\n{caught} defects caught, {len(bad)} problems, {seconds:.0f} s on {', '.join(map(str, devices))}")
    print("What this cannot see:", *(f"- {text}" for text in BLIND_SPOTS), sep="\n")
    if bad:
        print("\nDo not trust a green matrix on this machine before these are understood:")
        for verdict in bad:
            print(f"- {verdict.device}: {verdict.defect}: {verdict.found}: {verdict.detail}")
    return int(bool(bad))


def _print(verdict: Verdict) -> None:
    text = ", ".join(verdict.by)
    if verdict.detail and (verdict.is_bad or verdict.by == ("selftest",) or verdict.found == "not tried"):
        text = f"{text}: {verdict.detail}" if text else verdict.detail
    print(_row(verdict.defect, verdict.device, str(verdict.found), text), flush=True)


def _row(name: str, device: str, found: str, detail: str) -> str:
    return f"{name:<44}  {device:<14}  {found:<12}  {detail[:110]}".rstrip()
