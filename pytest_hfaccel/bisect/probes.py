"""One check of one cell, run by pytest in a process of its own, and whether that is good or bad.

The records are kept in the cache, so that a second call, also after Ctrl-C, runs nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pytest_hfaccel.bisect.environments import Environment
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import CheckOutcome, Status
from pytest_hfaccel.reporting.journal import JOURNAL, read_journal
from pytest_hfaccel.reporting.runs import latest_run

MODULE = "test_hf_cell.py"
_MODULE_TEXT = '''"""Any model class, for `hfaccel bisect`."""

from pytest_hfaccel import ModelClassTests


class TestCell(ModelClassTests):
    architectures = ("*",)
'''

NO_ENVIRONMENT, NOT_RUN = "no environment", "not run"
"""Statuses besides those of checks: the release cannot be installed; pytest has not run the check."""

_TAIL = 800
_ERRORS = ("rel_l2", "max_abs", "max_rel")
_ALLOWED = frozenset({"tolerance", "budget"})
"""Measures that say how large errors may be."""
_PASSED = frozenset({Status.PASSED, Status.XPASSED})
_FAILED = frozenset({Status.FAILED, Status.XFAILED})
ALSO_BAD = frozenset({Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.OUT_OF_MEMORY})
"""What is bad where the bad end ended like this, too; elsewhere something else has gone wrong."""


class Verdict(StrEnum):
    """What a release or a commit is."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(frozen=True)
class Probe:
    """How the check ended at one release or commit.

    Attributes:
        at: The release's version, or the commit's hash.
        status: The status of the check, `no environment` or `not run`.
        reason: Why it did not pass.
        measures: What the check measured.
        seconds: Wall-clock seconds of the process.
        changes: Versions that are others than the installed ones, by the package's name.
        command: A shell command that runs the check again.
        is_kept: Whether it was run by an earlier call.
    """

    at: str
    status: str
    reason: str = ""
    measures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    changes: dict[str, str] = field(default_factory=dict)
    command: str = ""
    is_kept: bool = False

    def verdict(self, also_bad: str = "") -> Verdict:
        """Say whether this is good or bad.

        Args:
            also_bad: One of `ALSO_BAD` that counts as bad besides a failed check.
        """
        if self.status in _PASSED:
            return Verdict.GOOD
        return Verdict.BAD if self.status in _FAILED or self.status == also_bad else Verdict.SKIP

    def numbers(self) -> dict[str, float]:
        """Return the numbers among the measures that say most: errors where there are any, the largest of each name."""
        found: dict[str, float] = {}
        for name, value in _measured(self.measures):
            found[name] = max(value, found.get(name, value))
        errors = {name: found[name] for name in _ERRORS if name in found}
        return errors or dict(list(found.items())[:3])

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {**asdict(self), "numbers": self.numbers()}


def _measured(measures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in measures.items():
        if isinstance(value, Mapping) and name not in _ALLOWED:
            yield from _measured(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


@dataclass(frozen=True)
class CellTest:
    """The test of a cell.

    Attributes:
        check: The check.
        tests: Arguments of pytest that select it; the test of a generated module when empty.
        options: Options of pytest that select the cell.
        directory: The working directory.
        timeout: Seconds that a run may take.
        variables: Environment variables of the cell's run.
    """

    check: str
    options: tuple[str, ...]
    tests: tuple[str, ...] = ()
    directory: Path = field(default_factory=Path.cwd)
    timeout: float = 1800.0
    variables: Mapping[str, str] = field(default_factory=dict)

    def selection(self, cache_dir: Path) -> tuple[str, ...]:
        """Return the arguments that select the test; the generated module is written where it is needed."""
        if self.tests:
            narrow = any(each.startswith("-k") or "::" in each for each in self.tests)
            return self.tests if narrow else (*self.tests, "-k", f"test_{self.check}")
        module = cache_dir / "bisect" / MODULE
        if not module.exists() or module.read_text(encoding="utf-8") != _MODULE_TEXT:
            replace_file(module, _MODULE_TEXT)
        return (f"{module}::TestCell::test_{self.check}",)


class Prober:
    """Runs a cell's test in environments, and keeps what came out.

    Args:
        test: The test.
        cache_dir: The project's cache directory.
        basis: What the outcomes depend on besides the release or the commit: see `environments.fingerprint`.
        fresh: Whether to run also what an earlier call has run.
    """

    def __init__(self, test: CellTest, cache_dir: Path, basis: str, *, fresh: bool = False) -> None:
        self._test = test
        self._results = cache_dir / "bisect" / "results"
        self._selection = test.selection(cache_dir)
        self._basis = [basis, *self._selection, *test.options, *_files_of(test), json.dumps(dict(test.variables))]
        self._fresh = fresh

    def run(
        self, at: str, environment: Callable[[], Environment], *first: Path, directory: Path | None = None
    ) -> Probe:
        """Run the test, unless it has been run.

        Args:
            at: The release or the commit.
            environment: Makes the environment.
            *first: Folders that Python looks in before all others.
            directory: The working directory, where it is another one than the test's.
        """
        file = self._results / f"{hashlib.sha256(json.dumps([*self._basis, at]).encode()).hexdigest()[:24]}.json"
        if not self._fresh and (kept := _read(file)) is not None:
            return kept
        found = environment()
        probe = replace(self._run(found, first, directory or self._test.directory), at=at, changes=dict(found.changes))
        if probe.status != NOT_RUN:
            replace_file(file, json.dumps(asdict(probe), indent=1))
        return probe

    def _run(self, environment: Environment, first: Sequence[Path], directory: Path) -> Probe:
        variables = {**environment.variables(*first), **self._test.variables}
        with tempfile.TemporaryDirectory(prefix="hfaccel-bisect-", ignore_cleanup_errors=True) as scratch:
            reports, output = Path(scratch, "reports"), Path(scratch, "output.txt")
            command = [sys.executable, "-m", "pytest", *self._selection, *self._test.options]
            silent = [f"--hf-reports={reports}", "--hf-database=none", "-p", "no:cacheprovider", "--color=no", "-q"]
            started = time.perf_counter()
            code = _wait([*command, *silent], directory, variables, output, self._test.timeout)
            seconds = time.perf_counter() - started
            outcome = self._outcome(reports) or self._end(code, output.read_text(encoding="utf-8", errors="replace"))
        place = variables.get("PYTHONPATH", "")
        shown = shlex.join([*([f"PYTHONPATH={place}"] if place else []), *command])
        return replace(outcome, seconds=round(seconds, 1), command=shown)

    def _outcome(self, reports: Path) -> Probe | None:
        """Return the outcome that the run has recorded."""
        folder = latest_run(reports)
        found: list[CheckOutcome] = []
        if folder is not None:
            with suppress(ConfigError):
                records = read_journal(folder / JOURNAL).results
                found = [one for record in records for one in record.checks if one.name == self._test.check]
        if not found:
            return None
        worst = min(found, key=lambda one: one.status.rank)
        return Probe("", str(worst.status), worst.reason or "", worst.measures)

    def _end(self, code: int | None, output: str) -> Probe:
        """Return what the end of a process without a record means; `code` is `None` if it took too long."""
        tail = output.strip()[-_TAIL:]
        if code is None:
            return Probe("", str(Status.TIMEOUT), f"not done within {self._test.timeout:.0f} s")
        if code < 0:
            return Probe("", str(Status.CRASHED), f"killed by signal {-code}: {tail}")
        return Probe("", NOT_RUN, f"pytest ended with {code}, without a record of {self._test.check}: {tail}")


def _wait(
    command: Sequence[str], directory: Path, variables: Mapping[str, str], output: Path, timeout: float
) -> int | None:
    """Run a command to its end; return its exit code, or `None` if it was ended because it took too long.

    Whatever ends the wait (Ctrl-C, too) ends the process and all that it started.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
                process.wait()


def _read(file: Path) -> Probe | None:
    try:
        return replace(Probe(**json.loads(file.read_text(encoding="utf-8"))), is_kept=True)
    except (OSError, ValueError, TypeError):
        return None


def _files_of(test: CellTest) -> Iterator[str]:
    """Yield hashes of the files that the arguments name: tests and registries."""
    for argument in (*test.tests, *test.options):
        path = test.directory / argument.partition("::")[0].rpartition("=")[2]
        if path.is_file():
            yield hashlib.sha256(path.read_bytes()).hexdigest()
