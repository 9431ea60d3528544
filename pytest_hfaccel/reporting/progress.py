"""What a terminal shows while a run, a benchmark or a sweep goes on: what runs where, how much is done, the time left.

The rows are at the bottom of the terminal, outside of its scrolling region (DECSTBM), as those of apt are. Whatever
else is printed does not have to know of them: pytest leaves the cursor in the middle of a line, tests print (`-s`),
workers and libraries write as they like, and all of it scrolls above. A display that erases and redraws its rows
between the lines of others, as rich's do, must have all output pass through it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from pytest_hfaccel.core.events import CellFinished, CheckFinished, Event
from pytest_hfaccel.core.results import CellKey

INTERVAL = 0.5
"""Seconds between two refreshes."""

_MOST_ROWS = 9
_LEAST_LINES, _LEAST_COLUMNS = 8, 40
"""The smallest terminal that is shared with progress."""
_PRIOR_SECONDS = 20.0
"""Work of this length, done just as fast as before, weighs as much as recorded durations."""
_TOO_EARLY = 0.05
"""Without recorded durations, the share of the work that must be done before the time left is estimated."""


def why_no_progress(stream: IO[str], environ: Mapping[str, str] | None = None) -> str:
    """Return why rows at the bottom would not be seen, or do harm; empty where they can be shown."""
    environ = os.environ if environ is None else environ
    if not stream.isatty():
        return "this is no terminal"
    if environ.get("CI") or environ.get("BUILD_NUMBER"):
        return "this is CI"
    if sys.platform == "win32":
        return "the terminals of Windows have not been tried"
    if environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return f"TERM={environ.get('TERM', '')}"
    return ""


class Footer:
    """Rows at the bottom of a terminal.

    Args:
        stream: A terminal, which the rows outlive: its descriptor is copied, because pytest lets that of the stream
            point elsewhere while a test runs.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._descriptor = os.dup(stream.fileno())
        self._process = os.getpid()
        self._rows = 0
        self._place: tuple[os.terminal_size, int] | None = None

    def show(self, lines: Sequence[str]) -> None:
        """Show lines, the first one highlighted. There never become fewer rows: what is above would jump.

        Raises:
            OSError: The terminal is gone.
        """
        if self._descriptor < 0 or self._process != os.getpid():  # closed; a fork's
            return
        size = os.get_terminal_size(self._descriptor)
        if size.lines < _LEAST_LINES or size.columns < _LEAST_COLUMNS:
            self.release()
            return
        self._rows = min(max(len(lines), self._rows), _MOST_ROWS, size.lines // 3)
        text = ""
        if self._place != (size, self._rows):
            text, self._place = self._reserve(size), (size, self._rows)
        text += "\0337"
        for number in range(self._rows):
            line = _printable(lines[number] if number < len(lines) else "")[: size.columns - 1]
            style, line = ("7", line.ljust(size.columns - 1)) if number == 0 else ("2", line)
            text += f"\033[{size.lines - self._rows + 1 + number};1H\033[0m\033[2K\033[{style}m{line}\033[0m"
        self._write(text + "\0338")  # at once, so that nobody's output comes in between

    def _reserve(self, size: os.terminal_size) -> str:
        """Return what makes room for the rows, wherever the cursor is, and keeps it there.

        The cursor goes down and up again without a change of its column; at the bottom that scrolls. What is below it
        are only rows of ours, from before the terminal changed its size.
        """
        down, up = "\033D" * self._rows, f"\033[{self._rows}A"
        return f"{_WHOLE}{down}{up}\0337\033[1;{size.lines - self._rows}r\0338"

    def release(self) -> None:
        """Give the terminal its whole height back; `show` takes it again."""
        if self._place is not None:
            self._place = None
            self._write(_WHOLE)

    def close(self) -> None:
        """Remove the rows for good."""
        if self._descriptor >= 0 and self._process == os.getpid():
            with suppress(OSError):
                self.release()
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, text: str) -> None:
        os.write(self._descriptor, text.encode("ascii"))


_WHOLE = "\0337\033[r\0338\033[J"
"""The whole terminal scrolls again, and what is below the cursor is erased. Setting a region moves the cursor home."""


def _printable(text: str) -> str:
    return "".join(one if " " <= one <= "~" else "?" for one in text)


class LiveDisplay:
    """Shows lines at the bottom of a terminal, again and again; the first problem with the terminal ends that.

    Args:
        stream: The terminal.
        make_lines: Returns what is shown.
        in_thread: Refresh every `INTERVAL` seconds, in a thread; else only `refresh` does.
    """

    def __init__(self, stream: IO[str], make_lines: Callable[[], Sequence[str]], *, in_thread: bool = True) -> None:
        self._footer = Footer(stream)
        self._make_lines = make_lines
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._is_hidden = False
        self._thread = threading.Thread(target=self._keep_fresh, daemon=True, name="hfaccel-progress")
        self._in_thread = in_thread

    def start(self) -> None:
        """Show the lines for the first time."""
        if self._in_thread:
            self._thread.start()
        else:
            self.refresh()

    def refresh(self) -> None:
        """Show what the lines are now."""
        try:
            lines = self._make_lines()
            with self._lock:
                if not self._over.is_set() and not self._is_hidden:
                    self._footer.show(lines)
        except Exception:  # whatever it is, the run goes on without
            self.close()

    def hide(self) -> None:
        """Remove the rows until `unhide`: somebody else needs the whole terminal, as a debugger does."""
        with self._lock:
            self._is_hidden = True
            self._footer.release()

    def unhide(self) -> None:
        """Show the rows again."""
        with self._lock:
            self._is_hidden = False

    def close(self) -> None:
        """Remove the rows for good. A second call does nothing."""
        with self._lock:
            self._over.set()
            self._footer.close()

    def _keep_fresh(self) -> None:
        while not self._over.is_set():
            self.refresh()
            self._over.wait(INTERVAL)


@dataclass(frozen=True)
class Activity:
    """What a process, or a machine, does at the moment.

    Attributes:
        what: In words: the cell and the check.
        where: The worker or the node; empty where there is only one.
        stage: The stage of the cell's life, perhaps with what it is busy with.
        since: When that began, on the monotonic clock.
    """

    what: str
    where: str = ""
    stage: str = ""
    since: float | None = None

    def line(self, now: float, width: int) -> str:
        """Return a row; `width` is that of the places."""
        place = f"{self.where:<{width}}  " if width else ""
        stage = f" ({self.stage})" if self.stage else ""
        seconds = f"  {duration_text(now - self.since)}" if self.since is not None else ""
        return f"{place}{self.what}{stage}{seconds}"


@dataclass(frozen=True)
class Counts:
    """How far something is.

    Attributes:
        done: Number of cells, or whatever is counted, that are done.
        total: Their number.
        noun: What they are.
        failed: How many of those that are done failed.
        elapsed: Seconds since the beginning.
        left: Seconds that the rest is going to take; `None` where there is no estimate.
    """

    done: int
    total: int
    noun: str = "cells"
    failed: int = 0
    elapsed: float = 0.0
    left: float | None = None

    def lines(
        self, activities: Iterable[Activity], memory: Mapping[str, tuple[int, int]], now: float | None = None
    ) -> list[str]:
        """Return the rows of a display.

        Args:
            activities: What runs, a row each.
            memory: Used bytes and all bytes by device.
            now: What the monotonic clock says; asked when not given.
        """
        now = time.monotonic() if now is None else now
        activities = list(activities)
        width = max((len(one.where) for one in activities), default=0)
        failed = f", {self.failed} failed" if self.failed else ""
        parts = [f"{self.done}/{self.total} {self.noun}{failed}", duration_text(self.elapsed)]
        if self.left is not None and self.left >= 1:  # less: it takes longer than was expected
            parts[-1] += f", about {duration_text(self.left)} left"
        if memory:
            amounts = (f"{name} {used / 2**30:.1f} of {total / 2**30:.0f}" for name, (used, total) in memory.items())
            parts.append(f"memory: {', '.join(amounts)} GiB")
        return [f" {' | '.join(parts)}", *(one.line(now, width) for one in activities)]


@dataclass(frozen=True)
class ExpectedCell:
    """A cell that is going to run.

    Attributes:
        model: Its model; one process after the other runs the cells of a model.
        seconds: How long it is expected to take.
        is_counted: False for the tests of a class itself, which need no device.
    """

    model: str
    seconds: float
    is_counted: bool = True


class RunProgress:
    """How far a run is, and how long the rest is going to take; a consumer of the run's events.

    Args:
        cells: The cells of the run.
        is_recorded: Whether earlier runs say how long they take; else the time left is estimated once a part of the
            work is done.
        workers: How many processes share the work.
        clock: Seconds.
    """

    def __init__(
        self,
        cells: Mapping[CellKey, ExpectedCell],
        *,
        is_recorded: bool = False,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cells, self._is_recorded, self._workers = dict(cells), is_recorded, workers
        self._clock, self._began = clock, clock()
        self._outcomes: Counter[CellKey] = Counter()
        self._share: dict[CellKey, float] = {}
        self._done: set[CellKey] = set()
        self._failed = 0

    def expect(self, cells: Mapping[CellKey, ExpectedCell], *, is_recorded: bool) -> None:
        """Replace what is expected: to read what earlier runs have recorded takes a while."""
        self._cells, self._is_recorded = dict(cells), is_recorded

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, CheckFinished):
            self._outcomes[event.key] += 1
            self._share[event.key] = min(1.0, self._outcomes[event.key] / max(1, event.selected))
        elif isinstance(event, CellFinished):
            self._done.add(event.result.key)
            self._share[event.result.key] = 1.0
            self._failed += event.result.status.is_bad

    @property
    def counts(self) -> Counts:
        """How far the run is."""
        counted = [key for key, cell in self._cells.items() if cell.is_counted]
        done = sum(key in self._done for key in counted)
        return Counts(done, len(counted), "cells", self._failed, self._clock() - self._began, self._left())

    def _left(self) -> float | None:
        elapsed = self._clock() - self._began
        done, left = 0.0, 0.0
        of_model: defaultdict[str, float] = defaultdict(float)
        for key, cell in self._cells.items():
            missing = (1 - self._share.get(key, 0.0)) * cell.seconds
            done += cell.seconds - missing
            left += missing
            of_model[cell.model] += missing
        if not done + left or (not self._is_recorded and done / (done + left) < _TOO_EARLY):
            return None
        workers = max(1, min(self._workers, len(of_model)))
        prior = _PRIOR_SECONDS if self._is_recorded else 0.0
        slower = (elapsed * workers + prior) / (done + prior)
        return slower * max(left / workers, max(of_model.values()))


def duration_text(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `12 min`, `2 h 05 min`."""
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 3570:
        return f"{seconds / 60:.0f} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
