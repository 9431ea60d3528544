"""The command `hfaccel`: subcommands over the same core the plugin drives."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_hfaccel import __version__
from pytest_hfaccel.core.errors import HfAccelError


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; each subcommand's module adds its own."""
    from pytest_hfaccel.cli import (
        bench,
        classify,
        database,
        hardware,
        predict,
        recommend,
        registry,
        reports,
        selftest,
    )

    parser = argparse.ArgumentParser(
        prog="hfaccel", description="Test, measure and predict Hugging Face models on hardware."
    )
    parser.add_argument("--version", action="version", version=f"hfaccel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (hardware, registry, classify, recommend, bench, predict, database, reports, selftest):
        command.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0, or 1 when the subcommand found a problem; argparse exits with 2 on bad usage.
    """
    given = make_parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except HfAccelError as error:
        print(f"hfaccel: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough.
        return 0
