"""pytest's options and ini settings, derived from `RunConfig.options()`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.config import Option, RunConfig

if TYPE_CHECKING:
    import pytest

_OLD = "hfaccel_old_"


def add_options(parser: pytest.Parser) -> None:
    """Declare the options; an unset one is `None`, so that environment and configuration file can fill it."""
    group = parser.getgroup("hfaccel", "Hugging Face models on hardware (pytest-hfaccel)")
    for option in RunConfig.options():
        if not option.flag:
            continue
        text = f"{option.help} [{option.env}]"
        group.addoption(option.flag, dest=f"hfaccel_{option.name}", help=text, **argparse_kind(option))
        if option.old_flag:
            group.addoption(option.old_flag, dest=_OLD + option.name, help=argparse.SUPPRESS, **argparse_kind(option))
        parser.addini(option.ini, f"As {option.flag}.", default=None)


def argparse_kind(option: Option[Any]) -> dict[str, Any]:
    """Return what `add_argument` needs besides the flag and the help text."""
    if option.is_switch:
        return {"action": "store_const", "const": True, "default": None}
    if option.bare:
        return {"action": "append", "nargs": "?", "const": option.bare, "metavar": "X"}
    if option.many:
        return {"action": "append", "default": None, "metavar": "X"}
    if option.choices:
        return {"choices": option.choices, "default": None}
    return {"default": None, "metavar": option.metavar or ("N" if option.counts else "PATH")}


def spell_out_bare_flags(config: pytest.Config, parser: pytest.Parser, arguments: list[str]) -> None:
    """Write `--flag` as `--flag=<what it means alone>`, or argparse takes the next argument, a path, for its value."""
    bare = {option.flag: option.bare for option in RunConfig.options() if option.bare}
    if bare.keys().isdisjoint(arguments):
        return
    from copy import copy

    arguments[:] = [f"{text}={bare[text]}" if text in bare else text for text in arguments]
    known = parser.parse_known_args(arguments, namespace=copy(config.option))
    # pytest looks for the first conftest files where these say.
    config.known_args_namespace.file_or_dir = known.file_or_dir


def read_options(config: pytest.Config) -> RunConfig:
    """Read the options back: from the command line, else the environment, else the configuration file.

    Raises:
        ConfigError: A value is not allowed.
    """
    namespace = vars(config.option)
    values = {}
    for option in RunConfig.options():
        value, old = namespace.get(f"hfaccel_{option.name}"), namespace.get(_OLD + option.name)
        if old is not None:
            _warn(config, f"{option.old_flag} is now called {option.flag}.")
            value = old if value is None else [*value, *old] if option.many else value
        values[option.name] = value

    def ini(option: Option[Any]) -> str | None:
        value = config.getini(option.ini)
        if option.name == "registries" and isinstance(value, str) and config.inipath is not None:
            # They lie beside the settings, wherever pytest is started. Blanks and home directories are read later.
            folder = config.inipath.parent
            files = [file.strip() for file in value.split(",")]
            return ",".join(file if not file or file.startswith("~") else str(folder / file) for file in files)
        return value if value is None or isinstance(value, str) else ",".join(map(str, value))

    return RunConfig.from_values(values, ini=ini, warn=lambda text: _warn(config, text))


def _warn(config: pytest.Config, text: str) -> None:
    import pytest

    config.issue_config_time_warning(pytest.PytestDeprecationWarning(text), stacklevel=2)
