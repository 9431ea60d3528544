"""The command `hfaccel`: subcommands over the same core the plugin drives."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel import __version__
from pytest_hfaccel.core.errors import ConfigError, HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Device


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; each subcommand's module adds its own."""
    from pytest_hfaccel.cli import classify, hardware, predict, recommend, registry, starting
    from pytest_hfaccel.cli.results import bisect, compare, compatibility, database, explain, reports
    from pytest_hfaccel.cli.runs import bench, cloud, merge, plan, run, selftest

    parser = argparse.ArgumentParser(
        prog="hfaccel", description="Test, measure and predict Hugging Face models on hardware."
    )
    parser.add_argument("--version", action="version", version=f"hfaccel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        *(starting, registry, classify, predict, recommend, hardware),
        *(run, plan, merge, cloud, bench, selftest),
        *(reports, compare, explain, bisect, compatibility, database),
    ):
        command.add_parser(commands)
    _show_help_without_command(parser)
    return parser


def _show_help_without_command(parser: argparse.ArgumentParser) -> None:
    """Let a parser whose command is missing list the commands, as do those within it; the exit code stays 2."""

    def show(_: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return 2

    for group in parser._actions:
        if isinstance(group, argparse._SubParsersAction):
            group.required = False
            parser.set_defaults(run=show)
            for subparser in group.choices.values():
                _show_help_without_command(subparser)


def commands_of(
    parser: argparse.ArgumentParser, name: str = "hfaccel"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands of a parser, those within commands included, by name and with their parsers."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for command, subparser in group.choices.items():
            yield from commands_of(subparser, f"{name} {command}")
    if not groups:
        yield name, parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        0, or 1 when the subcommand found a problem; argparse exits with 2 on bad usage.
    """
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell that `hfaccel completion` has prepared
        from argcomplete import autocomplete

        autocomplete(parser)
    parsed = parser.parse_args(arguments)
    try:
        _register_devices(getattr(parsed, "registry", None))
        return int(parsed.run(parsed))
    except HfAccelError as error:
        print(f"hfaccel: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (`head`, a pager) has seen enough
        return 0


def _register_devices(files: Sequence[str] | None) -> None:
    """Make the devices known that the registry files of the command line or the environment describe."""
    if not files and not os.environ.get("HFACCEL_REGISTRY"):
        return
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.registry.devices import register_devices

    register_devices(RunConfig.from_values({"registries": files}).registry_files)


def print_json(answer: Any) -> None:
    """Print an answer as JSON."""
    print(json.dumps(answer, indent=2))


def whole_number(text: str) -> int:
    """Read an argument that is a whole number of at least 1; for `type=` of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    """Read an argument that is a number above 0; for `type=` of argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def can_print(text: str) -> bool:
    """Whether the encoding of standard output has all characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def write_file(path: Path, content: str, option: str) -> None:
    """Replace a file.

    Raises:
        ConfigError: It cannot be written; the message begins with `option`, which named it.
    """
    from pytest_hfaccel.core.files import replace_file

    try:
        replace_file(path.expanduser(), content)
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be written: {error.strerror or error}.") from error


def devices_of(names: Iterable[str]) -> list[Device]:
    """Return the devices of these names, each one or several with commas, or those of this machine when there are none.

    Raises:
        ConfigError: A name is none of a device.
    """
    from pytest_hfaccel.backends import Backends
    from pytest_hfaccel.core.spec import Device
    from pytest_hfaccel.hardware import probe_devices

    backends = Backends()
    named = [Device.parse(name, backends.kinds()) for each in names for name in each.split(",") if name]
    return list(dict.fromkeys(named or probe_devices(backends=backends).present()))
