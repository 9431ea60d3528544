"""A model class module run as a script: `python model_classes/test_hf_bert.py --model bert-base-uncased`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.plugin.options import argparse_kind


def main(path: str, arguments: Sequence[str] | None = None) -> int:
    """Run a model class module as a script: `python model_classes/test_hf_bert.py --model bert-base-uncased`.

    Every option `--hf-<name>` can be written `--<name>`; every argument that is none of them goes to pytest as it is.
    `--help` shows these options and not pytest's.

    Args:
        path: The module's `__file__`.
        arguments: Command-line arguments; by default those of this process.

    Returns:
        pytest's exit code.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(typed):
        _help_parser(path).print_help()
        return 0
    import pytest

    short = {_short(flag): flag for option in RunConfig.options() for flag in (option.flag, option.old_flag) if flag}
    parts = [argument.partition("=") for argument in typed]
    return int(pytest.main([path, *(short.get(flag, flag) + equals + value for flag, equals, value in parts)]))


def _short(flag: str) -> str:
    return "--" + flag.removeprefix("--").removeprefix("hf-")


def _help_parser(path: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python {Path(path).name}",
        usage="%(prog)s [options] [arguments of pytest]",
        description="Test models of this module's classes: by default its default model on the best device here.",
        epilog="Every option can also be written --hf-<name>. All other arguments go to pytest: -k parity, -x, -n 2, "
        "--junitxml=FILE (`pytest --help` shows them).",
    )
    for option in RunConfig.options():
        if flag := option.flag:
            text = f"{option.help} [{option.env}]".replace("%", "%%")
            parser.add_argument(_short(flag), help=text, **argparse_kind(option))
    return parser
