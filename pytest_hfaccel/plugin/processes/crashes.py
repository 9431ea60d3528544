"""A process that runs tests for another one may die: its notes, and the reports of the tests that it took along.

A worker of pytest-xdist, or a process of `--hf-isolate`, keeps notes in the run's temporary directory (`NoteKeeper`):
the test, the stage, what it has printed, where in Python it crashed. Whoever runs the tests reads them when the process
has died (`read_death`), and reports the test that it died of and those that are not run because of it (`CrashReports`).
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.events import CheckFinished
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import CLASS_LEVEL
from pytest_hfaccel.core.stages import MACHINE, current_detail, current_stage, watch_stages
from pytest_hfaccel.plugin.reporting import outcome_properties
from pytest_hfaccel.plugin.state import CELL_TEST, COLLECTED, OPTIONS, SESSION, session_of

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.collection import CollectedTests

DEVICE_LOST = 75
"""Exit status of a process that ends because it cannot use its device any more: what is left runs in another one."""

GRACE = 5.0
"""Seconds beyond the time limit after which a process that has not ended itself is killed."""

_LAST_LINES = 15
_LINE_LENGTH = 300
_SAYS_NOTHING = re.compile(r"[/\\](_pytest|pluggy|xdist|execnet)[/\\]|^Extension modules:")
_TIMED_OUT = "Timeout ("
"""How the traceback begins that Python writes when the limit is reached."""


class NoteKeeper:
    """Keeps the notes of this process, as a plugin of it.

    Args:
        config: pytest's configuration.
        directory: Where the notes go; it must exist.
        name: What the process is called among those of the run.
    """

    def __init__(self, config: pytest.Config, directory: Path, name: str) -> None:
        self._config = config
        self._limit = config.stash[OPTIONS].timeout
        self._notes = _open(directory / f"{name}.notes")
        self._faults = _open(directory / f"{name}.faults")
        self._log = _open(directory / f"{name}.log")
        self._printed = {1: _open(directory / f"{name}.stdout"), 2: _open(directory / f"{name}.stderr")}
        self._test: dict[str, Any] = {}
        self._handler = logging.StreamHandler(self._log)
        self._handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self._handler)
        # pytest has enabled it for the terminal, where nobody would know which test it is about.
        faulthandler.enable(self._faults)
        watch_stages(self._note_stage)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Note which test runs; end the process if it takes too long, or leaves it without its device."""
        if CELL_TEST not in item.stash:
            self._test = {"test": item.nodeid, "since": time.monotonic()}
            self._note_stage("")
            result = yield
            self._forget_test()
            return result
        self._test = {"test": item.nodeid, "pid": os.getpid(), "since": time.monotonic(), "limit": self._limit}
        self._note_stage(current_stage())
        if self._limit:
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._faults)
        try:
            result = yield
        finally:
            if self._limit:
                faulthandler.cancel_dump_traceback_later()
            self._forget_test()
        if nextitem is not None and self._is_to_be_replaced(item, nextitem):
            _replace(self._notes, json.dumps({"lost": _device_of(item)}))
            os._exit(DEVICE_LOST)
        return result

    def extend(self, seconds: float) -> None:
        """Extend the time limit of the test that runs: so long it has waited for what other processes have."""
        if not self._limit or "since" not in self._test:
            return
        self._test["since"] += seconds
        self._note_stage(current_stage())
        left = self._limit - (time.monotonic() - self._test["since"])
        faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=self._faults)  # in place of the one before

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Have pytest capture into files that outlive this process."""
        if CELL_TEST in item.stash:
            self._outlive()

    def _is_to_be_replaced(self, item: pytest.Item, nextitem: pytest.Item) -> bool:
        """Whether the process has lost a device, and the cell is over whose other tests are not run."""
        if SESSION not in self._config.stash or not session_of(self._config).lost_devices:
            return False
        here, there = item.stash.get(CELL_TEST, None), nextitem.stash.get(CELL_TEST, None)
        return here is None or there is None or here.cell != there.cell or item.cls is not nextitem.cls  # type: ignore[attr-defined]

    def _outlive(self) -> None:
        """Put files with names in the place of the ones that pytest captures in, if it captures file descriptors."""
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            try:
                captured = stream.fileno()
                here, there = os.fstat(captured), os.fstat(number)
            except (OSError, ValueError):
                continue
            kept = self._printed[number].fileno()
            if captured == number or not stat.S_ISREG(here.st_mode) or not os.path.samestat(here, there):
                continue  # it is not captured
            if not os.path.samestat(here, os.fstat(kept)):
                os.write(kept, os.pread(captured, here.st_size, 0))
                os.dup2(kept, captured)
                os.dup2(kept, number)

    def _note_stage(self, stage: str) -> None:
        if self._test:
            _replace(self._notes, json.dumps({**self._test, "stage": stage, "detail": current_detail()}))

    def _forget_test(self) -> None:
        self._test = {}
        _replace(self._notes, "")
        _replace(self._log, "")

    def pytest_unconfigure(self) -> None:
        """Keep no more notes."""
        watch_stages(None)
        logging.getLogger().removeHandler(self._handler)


def _device_of(item: pytest.Item) -> str:
    return item.stash[CELL_TEST].cell.device.id if CELL_TEST in item.stash else ""


def _open(path: Path) -> IO[str]:
    return path.open("w+", encoding="utf-8", errors="replace")


def _replace(file: IO[str], text: str) -> None:
    """Replace the contents of a file in one write: what reads it may find the process dead at any time."""
    file.flush()
    data = text.encode()
    os.pwrite(file.fileno(), data, 0)
    os.ftruncate(file.fileno(), len(data))
    file.seek(0)


@dataclass(frozen=True)
class Death:
    """How a process ended, and what it was doing.

    Attributes:
        ended: In words: `was killed by SIGSEGV`; empty where it is not known.
        signal: The signal's name, where one killed it.
        test: The node id of the test that it ran.
        stage: Where in the cell's life; one of `Stage`, `machine`, or empty.
        timed_out: Seconds of the limit that it has reached; 0 where it has not.
        lost: The id of the device that it could not use any more, so that it ended itself between two cells.
        last_lines: What it has printed last.
    """

    ended: str = ""
    signal: str = ""
    test: str = ""
    stage: str = ""
    timed_out: float = 0
    lost: str = ""
    last_lines: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The status of the test that it died of."""
        if self.stage == MACHINE:
            return Status.INFRA_ERROR
        return Status.TIMEOUT if self.timed_out else Status.CRASHED

    @property
    def text(self) -> str:
        """What happened, in words."""
        at = f" at stage {self.stage}" if self.stage else ""
        if self.timed_out:
            return f"took more than {self.timed_out:g} s{at}, and was ended"
        return f"{self.ended}{at}" if self.ended else f"ended{at}"

    def explain(self, reason: str) -> str:
        """Add what is known to the reason of an outcome."""
        shown = "\n".join(["", "The last lines of the process:", *self.last_lines]) if self.last_lines else ""
        return f"{reason} ({self.text}){shown}"

    @property
    def measures(self) -> dict[str, Any]:
        """What the outcome says beyond its reason."""
        found = {"signal": self.signal, "ended": self.ended, "last_lines": self.last_lines}
        return {name: value for name, value in found.items() if value}


def read_death(directory: Path, name: str, code: int | None) -> Death:
    """Read the notes of a process that has died, and remove them.

    Args:
        directory: Where the notes are.
        name: As the process called itself.
        code: Its exit status, negative for a signal; `None` where that is not known.
    """
    from pytest_hfaccel.campaign.processes import how_it_ended

    notes = read_notes(directory / f"{name}.notes")
    faults, printed = _read(directory / f"{name}.faults"), [_read(directory / f"{name}.{what}") for what in _PRINTED]
    limit = float(notes.get("limit") or 0)
    is_late = limit > 0 and (faults.startswith(_TIMED_OUT) or time.monotonic() - notes["since"] > limit + GRACE)
    ended = "" if code is None else how_it_ended(code)
    lines = [*_first_lines(faults), *_lines("".join(f"{text.rstrip()}\n" for text in printed if text.strip()))]
    for file in directory.glob(f"{name}.*"):
        file.unlink(missing_ok=True)
    is_signal = code is not None and code < 0
    return Death(
        ended + (_out_of_memory_killer() if code == -getattr(signal, "SIGKILL", 9) and not is_late else ""),
        ended.rpartition(" ")[2] if is_signal else "",
        notes.get("test", ""),
        notes.get("stage", ""),
        limit if is_late else 0,
        notes.get("lost", ""),
        lines,
    )


_PRINTED = ("log", "stdout", "stderr")


def read_notes(path: Path) -> dict[str, Any]:
    """Read which test a process runs, and since when; empty where it runs none."""
    try:
        notes: dict[str, Any] = json.loads(_read(path) or "{}")
    except ValueError:  # just being written
        return {}
    return notes


def kill_late(directory: Path) -> None:
    """Kill the processes that have reached their time limit, and have not ended themselves."""
    for path in directory.glob("*.notes"):
        notes = read_notes(path)
        if notes.get("limit") and time.monotonic() - notes["since"] > notes["limit"] + GRACE:
            try:
                os.kill(notes["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
            except ProcessLookupError:
                continue


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lines(text: str) -> list[str]:
    return [line[:_LINE_LENGTH] for line in text.splitlines() if line.strip()][-_LAST_LINES:]


def _first_lines(faults: str) -> list[str]:
    """The beginning of a fault handler's report, which names the innermost function first.

    Of the threads it is the one that crashed, else the first one of the process, which runs the tests.
    """
    head, _, rest = faults.partition("\n")
    thread = rest.find("Current thread") if "Current thread" in rest else rest.rfind("Thread 0x")
    lines = [head, *(line for line in rest[max(thread, 0) :].splitlines() if not _SAYS_NOTHING.search(line))]
    return [line[:_LINE_LENGTH] for line in lines if line.strip()][:_LAST_LINES]


def _out_of_memory_killer() -> str:
    """Say that the system has been ending processes for lack of memory since this one began, where it counts them."""
    ended = _out_of_memory_kills() - _kills_before
    return f", perhaps by the system for lack of memory: it ended {ended} processes for that" if ended > 0 else ""


def _out_of_memory_kills() -> int:
    fields = dict(line.split() for line in _read(Path("/proc/vmstat")).splitlines() if line.startswith("oom_kill "))
    return int(fields.get("oom_kill", 0))


_kills_before = _out_of_memory_kills()


class CrashReports:
    """Makes pytest's reports of tests that their process did not live to report.

    Args:
        config: pytest's configuration, in the process that has started the others.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._decided: set[str] = set()

    @property
    def _collected(self) -> CollectedTests | None:
        return self._config.stash.get(COLLECTED, None)

    def note(self, report: pytest.TestReport) -> None:
        """Note that a test has an outcome, if this report is one."""
        if report.when != "setup" or not report.passed:
            self._decided.add(report.nodeid)

    def is_decided(self, nodeid: str) -> bool:
        """Whether the test has an outcome."""
        return nodeid in self._decided

    def complete(self, report: pytest.TestReport, death: Death) -> None:
        """Make the report of a test that its process died of say how, and give it the outcome of its check."""
        status = death.status
        if status == Status.CRASHED and self._collected is not None and report.nodeid in self._collected.tests:
            problems = list(self._machine_problems(report.nodeid))
            if problems:
                status = Status.INFRA_ERROR
                report.longrepr = f"{report.longrepr}; the machine is not fit: {'; '.join(problems)}"
        reason = str(report.longrepr)  # not `longreprtext`: it begins with the path of the interpreter
        report.longrepr = reason = death.explain(reason)
        if self.is_decided(report.nodeid):
            report.when = "teardown"  # an error beside the outcome that the test has had, as pytest has it
        stage = Stage(death.stage) if death.stage in set(Stage) else Stage.RUN
        self._attach(report, status, stage, reason, death.measures)

    def end_unrun(self, nodeids: Iterable[str], status: Status, reason: str) -> None:
        """Report those tests that have no outcome, in a run with model classes: other suites are xdist's alone."""
        if self._collected is None or not self._collected.tests:
            return
        for nodeid in [nodeid for nodeid in nodeids if nodeid not in self._decided]:
            path, _, name = nodeid.partition("::")
            ended = pytest.TestReport(nodeid, (path, None, name), {}, "failed", reason, "setup")
            if status == Status.SKIPPED:
                ended.outcome = "skipped"
                ended.longrepr = (path, None, reason)  # type: ignore[assignment]  # no line: the terminal knows this case
            self._attach(ended, status, Stage.RUN, reason)
            teardown = pytest.TestReport(nodeid, (path, None, name), {}, "passed", None, "teardown")
            teardown.user_properties += ended.user_properties
            for report in (ended, teardown):
                self._config.hook.pytest_runtest_logreport(report=report)

    def device_of(self, nodeid: str) -> str:
        """The id of the device of a test's cell; empty for a test of none."""
        test = self._collected.cell_and_check(nodeid) if self._collected is not None else None
        device = str(test[0]["device"]) if test is not None else ""
        return "" if device == CLASS_LEVEL.id else device

    def _machine_problems(self, nodeid: str) -> Iterator[str]:
        from pytest_hfaccel.engine.runner import directories_of
        from pytest_hfaccel.hardware.health import driver_problems, host_problems

        device = next((one for one in session_of(self._config).plan.devices if one.id == self.device_of(nodeid)), None)
        yield from host_problems(directories_of(self._config.stash[OPTIONS]))
        if device is not None:
            yield from driver_problems(device)

    def _attach(
        self,
        report: pytest.TestReport,
        status: Status,
        stage: Stage,
        reason: str,
        measures: dict[str, Any] | None = None,
    ) -> None:
        """Put an outcome into a report that no worker made, if its test is one of a model class."""
        collected = self._collected
        test = collected.cell_and_check(report.nodeid) if collected is not None else None
        if collected is not None and test is not None:
            facts, check = test
            outcome = CheckOutcome(check, status, stage, reason, measures or {})
            event = CheckFinished(facts, outcome, collected.selected(report.nodeid))
            report.user_properties += outcome_properties(event)
