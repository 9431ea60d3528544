"""The progress of a command, at the bottom of the terminal; nothing where standard error is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from pytest_hfaccel.core.events import CellFinished, Event
from pytest_hfaccel.core.results import CellKey
from pytest_hfaccel.reporting.progress import (
    Activity,
    Counts,
    ExpectedCell,
    LiveDisplay,
    RunProgress,
    why_no_progress,
)


class _Shown:
    """Shows `_lines` for a `with` block."""

    def __init__(self) -> None:
        self._display = None if why_no_progress(sys.stderr) else LiveDisplay(sys.stderr, self._lines)

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.close()

    def _lines(self) -> list[str]:
        raise NotImplementedError


class StepProgress(_Shown):
    """How far a command is that takes one step after the other; the time left is that of its steps up to now.

    Args:
        total: Number of steps.
        noun: What a step is, in the plural.
    """

    def __init__(self, total: int, noun: str) -> None:
        self._total, self._noun = total, noun
        self._done = 0
        self._began = time.monotonic()
        self._ended = self._began
        self._activity: Activity | None = None
        super().__init__()

    def begin(self, what: str, detail: str = "") -> None:
        """Say what the command does now."""
        since = self._activity.since if self._activity is not None and self._activity.what == what else None
        self._activity = Activity(what, stage=detail, since=since or time.monotonic())

    def finish(self) -> None:
        """Count a step."""
        self._done += 1
        self._ended = time.monotonic()
        self._activity = None

    def begin_one_of(self, done: int, total: int, what: str) -> None:
        """Say what the command does now, and how many steps there are; a line where there is no terminal."""
        if self._display is None:
            print(f"hfaccel: {done + 1} of {total}: {what}", file=sys.stderr)
        if done > self._done:
            self._done, self._ended = done, time.monotonic()
        self._total = total
        self.begin(what)

    def _lines(self) -> list[str]:
        activity, now = self._activity, time.monotonic()
        left = None
        if self._done:
            per_step = (self._ended - self._began) / self._done
            left = max(0.0, per_step * (self._total - self._done) - (now - self._ended))
        counts = Counts(self._done, self._total, self._noun, 0, now - self._began, left)
        return counts.lines([activity] if activity is not None else [], {})


class ClusterProgress(_Shown):
    """How far a run on a cluster is and what each node does, or a line per cell where there is no terminal.

    It is a consumer of the run's events.

    Args:
        cells: The cells of the run.
        nodes: What the nodes have, in words.
        workers: How many processes they run at a time.
        is_recorded: Whether earlier runs say how long the cells take.
    """

    def __init__(
        self, cells: Mapping[CellKey, ExpectedCell], nodes: str, *, workers: int = 1, is_recorded: bool = False
    ) -> None:
        self.node_of: Mapping[CellKey, str] = {}
        """The name of the node that ran a cell."""
        self._run = RunProgress(cells, workers=workers, is_recorded=is_recorded)
        self._total, self._nodes = len(cells), nodes
        self._done = 0
        self._activities: dict[str, Activity] = {}
        super().__init__()

    def __enter__(self) -> Self:
        print(f"{self._total} cells; {self._nodes}", file=sys.stderr)
        return super().__enter__()

    def show(self, node: str, text: str) -> None:
        """Show what a node does; nothing when it is idle."""
        self._activities[node] = Activity(text or "idle", node, since=time.monotonic() if text else None)

    def __call__(self, event: Event) -> None:
        """Count a finished cell."""
        self._run(event)
        if not isinstance(event, CellFinished):
            return
        result = event.result
        self._done += 1
        if self._display is None or result.status.is_bad:
            where = self.node_of.get(result.key, "")
            width = len(str(self._total))
            line = f"[{self._done:>{width}}/{self._total}] {result.cell} {result.status}"
            print(line + (f" on {where}" if where else ""), file=sys.stderr)

    def _lines(self) -> list[str]:
        return self._run.counts.lines(list(self._activities.values()), {})
