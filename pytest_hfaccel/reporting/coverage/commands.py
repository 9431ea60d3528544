"""The commands that a coverage shows: of the runs it is made of, and those that run a cell again."""

from __future__ import annotations

import re
from typing import Any

from pytest_hfaccel.core.results import CellResult

_LENGTH = 320
_FOLDERS = re.compile(r"""(?<![^\s='"])(?:~|[A-Za-z]:|)[/\\](?:[^\s'"/\\]+[/\\])+(?=[^\s'"/\\])""")


def command_of(cell: CellResult) -> str:
    """Return the command that runs a cell again."""
    where = "" if cell.device == "class" else f" --hf-device {cell.device} --hf-dtype {cell.dtype}"
    return f"pytest model_classes/test_hf_{cell.module}.py --hf-model {cell.model}{where}"


def command_of_run(header: dict[str, Any]) -> str | None:
    """Return the command line of a run for others to read.

    It is shortened where it names hundreds of models. Of absolute paths the last part is kept: the others say where
    things lie on one machine, the name of its user included.

    Args:
        header: The first record of the run's journal, or what an earlier coverage kept of it.
    """
    command: str | None = header.get("run", {}).get("command")
    if command is None:
        return None
    command = _FOLDERS.sub("…/", command)
    if len(command) <= _LENGTH:
        return command
    half = _LENGTH // 2
    return f"{command[:half].rpartition(' ')[0]} … {command[-half:].partition(' ')[2]}"
