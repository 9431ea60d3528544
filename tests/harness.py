"""A real pytest run in a process of its own, and what it left behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.results import CellKey, CellResult
from tests.forkserver import Connection, ForkedPopen

_server: Connection | None = None
_hub_home: Path | None = None

BERT_MODULE = """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*", "DistilBert*")
    default_model = "bert-base-uncased"
"""

_COUNT = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|error|errors|deselected)")


@dataclass
class HfRun:
    """The outcome of a run: exit code, output, pytest's counts and our reports."""

    code: int
    output: str
    reports: Path

    @property
    def counts(self) -> dict[str, int]:
        """pytest's closing counts, e.g. `{"passed": 12}`."""
        closing = [line for line in self.output.splitlines() if re.search(r" in [\d.]+s", line)]
        return {name: int(number) for number, name in _COUNT.findall(closing[-1])} if closing else {}

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`."""
        data: dict[str, Any] = json.loads((self.reports / "summary.json").read_text(encoding="utf-8"))
        return data

    @property
    def results(self) -> dict[str, CellResult]:
        """The cells of `by_class`, by id; of runs in which no two modules test the same cell."""
        found = {cell: result for (_, cell), result in self.records.items()}
        assert len(found) == len(self.records), "two modules tested a cell: look at `records`"
        return found

    @property
    def records(self) -> dict[CellKey, CellResult]:
        """The cells of `by_class`, by module and id."""
        found: dict[CellKey, CellResult] = {}
        for path in sorted((self.reports / "by_class").glob("*.json")):
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                result = CellResult.from_json(cell)
                assert result.key not in found, f"two records of {result.key}"
                found[result.key] = result
        return found

    def statuses(self, cell: str) -> dict[str, str]:
        """Status by check of one cell."""
        return {check.name: str(check.status) for check in self.results[cell].checks}


def environment(cache: Path, **extra: str) -> dict[str, str]:
    """An environment without hub, with the caches of this test run, free of the user's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HFACCEL_", "PYTEST_", "HF_"))}
    hub_home = _hub_home or cache / "hf"
    ours = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub_home), "HFACCEL_CACHE": str(cache / "hfaccel")}
    return {**kept, **ours, "TRANSFORMERS_VERBOSITY": "error", **extra}


def run_python(
    arguments: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    *,
    given: str = "",
    timeout: float = 280,
    new_process: bool = False,
    limits: Mapping[int, int] | None = None,
    prepare: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run Python, in a fork of a process that has the heavy packages imported where that makes no difference.

    Args:
        arguments: Arguments of Python.
        cwd: Working directory.
        env: Environment.
        given: Standard input.
        timeout: Seconds.
        new_process: For tests of what gets imported: start an interpreter.
        limits: Soft limits by constant of `resource`.
        prepare: Called in the process, a new one, before Python starts.
    """
    process = ForkedPopen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        new_process=new_process,
        limits=limits,
        preexec_fn=prepare,
    )
    with process:
        try:
            output, errors = process.communicate(given, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def use_fork_server(address: str, hub_home: Path) -> None:
    """Let `run_python` fork. All processes look for the hub's files at `hub_home`, which is read at the import."""
    global _server, _hub_home
    _hub_home = hub_home
    _server = ForkedPopen.server = Connection(address, environment(hub_home))


class Project:
    """A user's project: one model class module, perhaps a conftest, and pytest runs in it.

    Args:
        directory: Where it is made.
        cache: Caches, shared with the other projects of the test run.
    """

    def __init__(self, directory: Path, cache: Path) -> None:
        self.directory = directory
        self.cache = cache
        self.write("test_hf_bert.py", BERT_MODULE)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def command(self, *arguments: str) -> list[str]:
        """The command line of a pytest run."""
        return [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *arguments]

    def start(self, *arguments: str, new_process: bool = False, **env: str) -> subprocess.Popen[str]:
        """Start pytest as `run` does, and return the process at once; it writes everything to its standard output."""
        return ForkedPopen(
            self.command(*arguments),
            cwd=self.directory,
            env=environment(self.cache, **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Jobs of a shell without job control inherit an ignored SIGINT, and Python would then ignore it, too; a
            # fork does not.
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if new_process else None,
            new_process=new_process,
        )

    def run(
        self,
        *arguments: str,
        timeout: float = 280,
        largest_file: int | None = None,
        largest_memory: int | None = None,
        new_process: bool = False,
        **env: str,
    ) -> HfRun:
        """Run pytest on the project's modules, with its environment and `env`.

        Args:
            *arguments: Command-line arguments.
            timeout: Seconds.
            largest_file: Bytes; writing more to a file fails, as it does on a full disk.
            largest_memory: Bytes of virtual memory; to ask for more fails.
            new_process: Start an interpreter, see `run_python`.
            **env: Environment variables.
        """

        limits = {resource.RLIMIT_FSIZE: largest_file, resource.RLIMIT_AS: largest_memory}
        done = run_python(
            self.command(*arguments)[1:],
            self.directory,
            environment(self.cache, **env),
            timeout=timeout,
            new_process=new_process,
            limits={what: most for what, most in limits.items() if most},
        )
        return HfRun(done.returncode, done.stdout + done.stderr, self.directory / "reports")
