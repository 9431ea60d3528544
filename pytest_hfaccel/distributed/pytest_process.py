"""One group of cells in a pytest process of its own, on whichever machine; what it writes to its journal is passed on.

The process runs a shard of the plan: so it refuses to run where packages, options or the registry are others than on
the machine that planned. If a cell takes it down, the run is resumed in a new process, as `--hf-resume` does.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import HARDWARE_FILE
from pytest_hfaccel.core.results import CellKey
from pytest_hfaccel.distributed.plan import ShardPlan, write_plan
from pytest_hfaccel.reporting.journal import JOURNAL
from pytest_hfaccel.reporting.reports import SUMMARY
from pytest_hfaccel.reporting.runs import run_folders

_POLL_SECONDS = 0.1
_END_SECONDS = 10.0
_TAIL_LINES = 40
_ENDS = frozenset(range(6))
"""The exit codes of pytest; with any other one something has taken the process down."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class PytestTask:
    """What a process is to run.

    Attributes:
        plan: The plan of the whole run, in one shard.
        cells: The cells to run; none for the tests that belong to no model class.
        hardware: What all machines have, as JSON; see `core.presence.HARDWARE_FILE`.
        directory: The working directory; empty for that of the calling process.
        environment: Further environment variables.
    """

    plan: ShardPlan
    cells: frozenset[CellKey]
    hardware: str
    directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()

    def split_plan(self) -> tuple[ShardPlan, str]:
        """Return the plan with the cells as a shard, and that shard's number.

        The first shard has all tests that belong to no model class.
        """
        cells = [cell for shard in self.plan.shards for cell in shard]
        mine = [cell for cell in cells if cell.key in self.cells]
        others = [cell for cell in cells if cell.key not in self.cells]
        if not self.cells:
            return replace(self.plan, shards=[[], others]), "1/2"
        return replace(self.plan, shards=[others, mine]), "2/2"


def run_pytest(task: PytestTask) -> Iterator[dict[str, Any]]:
    """Run pytest, and yield what happens.

    Yields:
        `{"type": "start", ...}` and `{"type": "cell", ...}` as in the journal, and in the end
        `{"type": "end", "code": 0, "output": "...", "pool": [...]}`: pytest's exit code, the last lines it printed, and
        the statistics of its models.

    Raises:
        ConfigError: The working directory is not on this machine.
    """
    directory = Path(task.directory or Path.cwd())
    if not directory.is_dir():
        raise ConfigError(
            f"there is no directory {directory} on this node.",
            hint="Share it between the nodes, or let `hfaccel run --upload` copy it to them.",
        )
    with TemporaryDirectory(prefix="hfaccel-", ignore_cleanup_errors=True) as scratch:
        plan, shard = task.split_plan()
        folder = Path(scratch)
        write_plan(folder / "plan.json", plan)
        (folder / "hardware.json").write_text(task.hardware, encoding="utf-8")
        reports = folder / "reports"
        options = {"plan": folder / "plan.json", "shard": shard, "reports": reports, "database": "none"}
        command = [*plan.arguments, *(f"--hf-{name}={value}" for name, value in options.items())]
        command += ["-p", "no:cacheprovider", "--color=no"]
        environment = {**os.environ, **dict(task.environment), HARDWARE_FILE: str(folder / "hardware.json")}
        journals, code = _Journals(reports), 0
        # Each process but the last one leaves the record of the cell that took it down to the next one.
        for resumed in range(len(task.cells) + 1):
            output = folder / f"output-{resumed}.txt"
            yield from _run(command, directory, environment, output, journals)
            code = journals.code
            if code in _ENDS or not journals.has_news:
                break
            command = [*command.copy(), "--hf-resume"] if not resumed else command
        yield {"type": "end", "code": code, "output": _tail(output), "pool": _pool(reports)}


class _Journals:
    """Reads the lines that are added to the journals of a directory of reports."""

    def __init__(self, reports: Path) -> None:
        self._reports = reports
        self._read: dict[Path, int] = {}
        self.code = 0
        self.has_news = False

    def lines(self) -> Iterator[dict[str, Any]]:
        for folder in run_folders(self._reports):
            path = folder / JOURNAL
            with suppress(OSError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is still being written
                    self._read[path] = self._read.get(path, 0) + len(line)
                    data = json.loads(line)
                    if data["type"] in ("start", "cell"):
                        self.has_news = True
                        yield data


def _run(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], output: Path, journals: _Journals
) -> Iterator[dict[str, Any]]:
    journals.has_news = False
    launch = f"from {__name__} import main; main({os.getpid()})"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", launch, *command],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                yield from journals.lines()
                time.sleep(_POLL_SECONDS)
            yield from journals.lines()
            journals.code = process.returncode
        finally:  # also when nobody wants the rest
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def main(parent: int) -> None:
    """Run pytest with the arguments of the command line; end with the process that started this one.

    Args:
        parent: The id of that process.
    """
    if sys.platform == "linux":
        # When a node is lost its engine's processes are killed: what they have started must not go on.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


def _tail(output: Path) -> str:
    return "\n".join(output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_TAIL_LINES:])


def _pool(reports: Path) -> list[Any]:
    found: list[Any] = []
    for folder in run_folders(reports):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found += json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["run"].get("pool") or []
    return found
