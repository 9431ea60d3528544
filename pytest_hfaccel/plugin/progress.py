"""The progress of a pytest run in the terminal, from its events and the notes of the processes that run its tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hfaccel.core.events import CheckFinished, CheckStarted, Event, EventStream, RunFinished
from pytest_hfaccel.core.results import CellKey
from pytest_hfaccel.core.spec import CLASS_LEVEL
from pytest_hfaccel.core.stages import MACHINE, current_detail, current_stage
from pytest_hfaccel.distributed.durations import RECORDED, UNKNOWN_SECONDS, seconds_of_cells
from pytest_hfaccel.plugin.processes.crashes import read_notes
from pytest_hfaccel.plugin.state import NOTES, OPTIONS, session_of
from pytest_hfaccel.reporting.progress import Activity, ExpectedCell, LiveDisplay, RunProgress, why_no_progress

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.collection import CollectedTests

_MEMORY_SECONDS = 2.0
"""How long a reading of the memory stands."""
_MEASURES = "performance"
"""While this check runs in this process, its memory is not read."""


def show_progress(config: pytest.Config, collected: CollectedTests, stream: EventStream) -> None:
    """Have the run's events shown as they come, if there is a terminal and nobody has asked for quiet."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    # Reporters of others (pytest-sugar, pytest-rich) draw on the terminal themselves.
    is_pytests = type(terminal).__module__.startswith("_pytest.")
    is_quiet = config.stash[OPTIONS].progress == "off" or config.option.verbose < 0
    if not is_pytests or is_quiet or why_no_progress(sys.stdout):
        return
    progress = TerminalProgress(config, collected)
    config.pluginmanager.register(progress, "hfaccel-progress")
    config.add_cleanup(progress.close)
    stream.consumers.append(progress)
    progress.start()


class TerminalProgress:
    """A consumer of the run's events that shows them, and a plugin that gives way to debuggers.

    Args:
        config: pytest's configuration.
        collected: The tests of model classes.
    """

    def __init__(self, config: pytest.Config, collected: CollectedTests) -> None:
        from pytest_hfaccel.plugin.processes.isolation import is_isolated
        from pytest_hfaccel.plugin.processes.placement import selected_cells

        self._config, self._collected = config, collected
        self._has_workers = config.getoption("dist", "no") != "no"
        self._cells = selected_cells(collected)
        self._run = RunProgress(
            self._expected([UNKNOWN_SECONDS] * len(self._cells)),
            workers=len(config.getoption("tx", None) or ()) if self._has_workers else 1,
        )
        self._has_read_durations = False
        self._running: dict[str, float] = {}
        self._memory: dict[str, tuple[int, int]] = {}
        self._memory_read = 0.0
        # A process with threads could not be forked (`isolation.why_not_fork`): it refreshes between two messages.
        self._display = LiveDisplay(sys.stdout, self._lines, in_thread=not is_isolated(config))

    def start(self) -> None:
        """Show the first rows."""
        self._display.start()

    def refresh(self) -> None:
        """Show what has happened since the last time."""
        self._display.refresh()

    def close(self) -> None:
        """Show nothing any more."""
        self._display.close()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, RunFinished):
            self.close()
        elif isinstance(event, CheckStarted):
            now = time.monotonic()
            self._running = {test: self._running.get(test, now) for test in (*event.running, event.test)}
        else:
            if isinstance(event, CheckFinished):
                self._running.pop(event.test, None)
            self._run(event)

    def pytest_enter_pdb(self) -> None:
        """Give a debugger the whole terminal."""
        self._display.hide()

    def pytest_leave_pdb(self) -> None:
        """Take the last rows again."""
        self._display.unhide()

    def _lines(self) -> list[str]:
        if not self._has_read_durations:
            self._has_read_durations = True
            self._read_durations()
        return self._run.counts.lines(self._activities(), self._read_memory())

    def _read_durations(self) -> None:
        """Learn from earlier runs how long the cells take; what a resumed run takes over takes no time."""
        from pytest_hfaccel.plugin.processes.placement import EarlierRuns

        durations = EarlierRuns(self._config.stash[OPTIONS].reports_dir, self._config.rootpath).durations
        estimates = seconds_of_cells(self._cells, durations)
        earlier = session_of(self._config).plan.earlier if self._config.stash[OPTIONS].resume else None
        finished = earlier.finished if earlier is not None else {}
        seconds = [
            0.0 if cell.key in finished else seconds for cell, (seconds, _) in zip(self._cells, estimates, strict=True)
        ]
        self._run.expect(self._expected(seconds), is_recorded=any(source == RECORDED for _, source in estimates))

    def _expected(self, seconds: Sequence[float]) -> dict[CellKey, ExpectedCell]:
        return {
            cell.key: ExpectedCell(cell.model, one, is_counted=cell.device != CLASS_LEVEL.id)
            for cell, one in zip(self._cells, seconds, strict=True)
        }

    def _activities(self) -> Iterator[Activity]:
        """What runs: by the notes of the processes that run the tests, else by the events and the stage here."""
        directory = self._config.stash.get(NOTES, None)
        noted = {}
        if directory is not None:
            noted = {path.stem: read_notes(path) for path in sorted(directory.glob("*.notes"), key=_number)}
        noted = {name: notes for name, notes in noted.items() if notes}
        for name, notes in noted.items():
            stage = _stage_text(notes.get("stage", ""), notes.get("detail", ""))
            yield Activity(self._text(notes["test"]), name if self._has_workers else "", stage, notes.get("since"))
        if not noted:
            here = directory is None and not self._has_workers
            stage = _stage_text(current_stage(), current_detail()) if here else ""
            for test, since in list(self._running.items()):
                yield Activity(self._text(test), stage=stage, since=since)

    def _text(self, test: str) -> str:
        known = self._collected.tests.get(test)
        if known is None:
            return test
        index, check = known
        return f"{self._collected.cells[index]['cell']} {check}"

    def _read_memory(self) -> dict[str, tuple[int, int]]:
        """Used bytes and all bytes of the devices of the run, where they are known without starting a runtime."""
        now = time.monotonic()
        is_measuring = not self._has_workers and any(f"::test_{_MEASURES}[" in test for test in list(self._running))
        if now - self._memory_read > _MEMORY_SECONDS and not is_measuring:
            from pytest_hfaccel.pool.account import HOST, memory_of, resource_of

            self._memory_read = now
            devices = session_of(self._config).plan.devices
            names = dict.fromkeys([HOST, *map(resource_of, devices)])
            found = memory_of(names)
            self._memory = {
                name: (found[name].total_bytes - found[name].available_bytes, found[name].total_bytes)
                for name in names
                if name in found
            }
        return self._memory


def _stage_text(stage: str, detail: str) -> str:
    return detail or ("checking the machine" if stage == MACHINE else stage)


def _number(path: Path) -> tuple[int, str]:
    """Order the notes of workers: `gw2` comes before `gw10`."""
    return (len(path.stem), path.stem)
