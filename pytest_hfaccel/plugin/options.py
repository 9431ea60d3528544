"""The pytest options, derived from the fields of `RunConfig`."""

from __future__ import annotations

from copy import copy
from dataclasses import fields
from typing import TYPE_CHECKING

from pytest_hfaccel.core.config import RunConfig

if TYPE_CHECKING:
    import pytest


def add_options(parser: pytest.Parser) -> None:
    """Declare one option per flagged field; an unset option is `None`, so that the environment can fill it."""
    group = parser.getgroup("hfaccel", "Hugging Face models on hardware (pytest-hfaccel)")
    for option in fields(RunConfig):
        flag, choices = option.metadata["flag"], option.metadata["choices"]
        if not flag:
            continue
        text = f"{option.metadata['help']} [{option.metadata['env']}]"
        dest = f"hfaccel_{option.name}"
        if isinstance(option.default, bool):
            group.addoption(flag, dest=dest, action="store_const", const=True, default=None, help=text)
        elif bare := option.metadata["bare"]:
            group.addoption(flag, dest=dest, action="append", nargs="?", const=bare, metavar="X", help=text)
        elif option.metadata["many"]:
            group.addoption(flag, dest=dest, action="append", default=None, metavar="X", help=text)
        elif choices:
            group.addoption(flag, dest=dest, choices=choices, default=None, help=text)
        else:
            metavar = "N" if option.metadata["counts"] else "PATH"
            group.addoption(flag, dest=dest, default=None, metavar=metavar, help=text)


def spell_out_bare_flags(config: pytest.Config, parser: pytest.Parser, arguments: list[str]) -> None:
    """Write `--flag` as `--flag=<what it means alone>`, or argparse takes the next argument, a path, for its value."""
    bare = {option.metadata["flag"]: option.metadata["bare"] for option in fields(RunConfig) if option.metadata["bare"]}
    if not bare.keys() & set(arguments):
        return
    arguments[:] = [f"{text}={bare[text]}" if text in bare else text for text in arguments]
    known = parser.parse_known_args(arguments, namespace=copy(config.option))
    # pytest looks for the first conftest files where these say.
    config.known_args_namespace.file_or_dir = known.file_or_dir


def read_options(config: pytest.Config) -> RunConfig:
    """Read the options back.

    Raises:
        ConfigError: A value is not allowed.
    """
    return RunConfig.from_values(
        {
            option.name: config.getoption(f"hfaccel_{option.name}", default=None)
            for option in fields(RunConfig)
            if option.metadata["flag"]
        }
    )
