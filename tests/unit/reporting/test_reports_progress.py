"""The rows at the bottom of a terminal, in an emulated one, and the time left."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from typing import Any

import pyte
import pytest

from pytest_hfaccel.core.events import CellFinished, CheckFinished
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Status
from pytest_hfaccel.reporting.progress import (
    Activity,
    Counts,
    ExpectedCell,
    Footer,
    LiveDisplay,
    RunProgress,
    duration_text,
    why_no_progress,
)

COLUMNS = 60


class Terminal:
    """A terminal of a few lines: `stream` is what programs write to, `rows` what a person sees."""

    def __init__(self, lines: int = 12) -> None:
        self._master, self._slave = pty.openpty()
        self.stream = os.fdopen(self._slave, "w")
        self.screen = pyte.HistoryScreen(COLUMNS, lines, history=1000)
        self._emulator = pyte.ByteStream(self.screen)
        self.resize(lines)

    def resize(self, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, COLUMNS, 0, 0))
        self._read()
        self.screen.resize(lines, COLUMNS)

    def write(self, text: str) -> None:
        """What another program writes, one that knows nothing of the rows."""
        os.write(self._slave, text.encode())

    def _read(self) -> None:
        os.set_blocking(self._master, False)
        try:
            while data := os.read(self._master, 65536):
                self._emulator.feed(data)
        except BlockingIOError:
            pass

    @property
    def rows(self) -> list[str]:
        self._read()
        return [row.rstrip() for row in self.screen.display]

    @property
    def text(self) -> list[str]:
        """Everything that was ever above the rows, as scrolling back shows it."""
        rows = self.rows
        gone = ["".join(line[column].data for column in range(COLUMNS)).rstrip() for line in self.screen.history.top]
        return [*gone, *rows]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_output_scrolls_above_the_rows_and_is_all_there(terminal: Terminal) -> None:
    footer = Footer(terminal.stream)
    for number in range(40):
        terminal.write(f"test {number} ")  # the cursor waits in the line, as pytest leaves it with -v
        footer.show([f"{number}/40", f"running {number}"])
        assert terminal.rows[-2:] == [f"{number}/40", f"running {number}"]
        terminal.write("PASSED\n")
    footer.close()
    assert terminal.text[:40] == [f"test {number} PASSED" for number in range(40)]
    assert not any(terminal.text[40:]), "the rows are gone, and nothing of them is left"
    terminal.write("summary")
    assert terminal.text[40] == "summary"
    assert terminal.screen.margins is None


@pytest.mark.parametrize("at", [1, 6, 10, 11, 12, 30])
def test_rows_that_come_when_the_cursor_is_anywhere(terminal: Terminal, at: int) -> None:
    for number in range(1, at):
        terminal.write(f"line {number}\n")
    terminal.write("half a ")
    footer = Footer(terminal.stream)
    footer.show(["1/2", "a"])
    terminal.write("line\nnext\n")
    footer.show(["1/2", "a", "b", "c"])  # more workers
    terminal.write("last")
    assert terminal.rows[-4:] == ["1/2", "a", "b", "c"]
    footer.show(["2/2"])
    assert terminal.rows[-4:] == ["2/2", "", "", ""], "what is above does not jump down"
    footer.close()
    expected = [*(f"line {number}" for number in range(1, at)), "half a line", "next", "last"]
    assert [line for line in terminal.text if line] == expected


def test_a_terminal_that_changes_its_size(terminal: Terminal) -> None:
    footer = Footer(terminal.stream)
    terminal.write("one\ntwo\nthr")
    footer.show(["1/2", "a"])
    terminal.resize(20)
    footer.show(["2/2", "b"])
    terminal.write("ee\nfour\n")
    assert terminal.rows[-2:] == ["2/2", "b"]
    assert [row for row in terminal.rows if row] == ["one", "two", "three", "four", "2/2", "b"]
    terminal.resize(9)
    footer.show(["3/3", "c"])
    assert terminal.rows[-2:] == ["3/3", "c"]
    assert "2/2" not in terminal.rows
    terminal.resize(5)  # too small to share
    footer.show(["4/4", "d"])
    assert "4/4" not in terminal.rows
    footer.close()


def test_rows_hold_no_control_characters_and_end_at_the_edge(terminal: Terminal) -> None:
    footer = Footer(terminal.stream)
    footer.show(["a\033[2Jb\nü" + "x" * 100])
    assert terminal.rows[-1] == "a?[2Jb??" + "x" * (COLUMNS - 9)
    footer.close()


def test_a_display_follows_what_happens_and_gives_way(terminal: Terminal) -> None:
    shown, seen = ["0/1"], threading.Event()

    def lines() -> list[str]:
        seen.set()
        return shown

    display = LiveDisplay(terminal.stream, lines)
    display.start()
    assert seen.wait(5)
    shown[0] = "1/1"
    display.refresh()
    assert terminal.rows[-1] == "1/1"
    display.hide()
    display.refresh()
    assert not any(terminal.rows)
    display.unhide()
    display.refresh()
    assert terminal.rows[-1] == "1/1"
    display.close()
    display.refresh()
    assert not any(terminal.rows)


def test_a_display_that_fails_ends_and_nothing_else_does(terminal: Terminal) -> None:
    def broken() -> list[str]:
        raise OSError("the terminal is gone")

    display = LiveDisplay(terminal.stream, broken, in_thread=False)
    display.start()
    display.refresh()
    display.close()
    assert not any(terminal.rows)


def test_where_nothing_is_shown(terminal: Terminal) -> None:
    good = {"TERM": "xterm-256color"}
    assert why_no_progress(terminal.stream, good) == ""
    assert why_no_progress(terminal.stream, {**good, "CI": "true"}) == "this is CI"
    assert why_no_progress(terminal.stream, {**good, "BUILD_NUMBER": "7"}) == "this is CI"
    assert why_no_progress(terminal.stream, {"TERM": "dumb"}) == "TERM=dumb"
    assert why_no_progress(terminal.stream, {}) == "TERM="
    assert why_no_progress(io.StringIO(), good) == "this is no terminal"


def test_the_rows_say_what_runs_where() -> None:
    memory = {"host": (2 * 2**30, 16 * 2**30), "cuda:0": (2**29, 80 * 2**30)}
    counts = Counts(3, 12, "cells", failed=1, elapsed=130, left=400)
    running = [Activity("gpt2-cpu-fp32 parity", "gw0", "load", 90.0), Activity("bert-cuda0-fp16 forward", "gw10")]
    assert counts.lines(running, memory, now=100.0) == [
        " 3/12 cells, 1 failed | 2 min, about 7 min left | memory: host 2.0 of 16, cuda:0 0.5 of 80 GiB",
        "gw0   gpt2-cpu-fp32 parity (load)  10 s",
        "gw10  bert-cuda0-fp16 forward",
    ]
    assert Counts(0, 1, elapsed=5).lines([], {}) == [" 0/1 cells | 5 s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (150, "2 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def facts(cell: str) -> dict[str, Any]:
    names = {"model": cell, "architecture": "A", "task": "t", "device": "cpu", "dtype": "fp32", "weights": "tiny"}
    return {"cell": cell, "module": "m", **names}


def finish(progress: RunProgress, cell: str, status: Status = Status.PASSED) -> None:
    progress(CellFinished(CellResult(**facts(cell), checks=[CheckOutcome("parity", status)])))


def test_the_time_left_comes_from_recorded_durations_and_from_how_this_run_compares() -> None:
    clock = Clock()
    cells = {("m", name): ExpectedCell(name, seconds) for name, seconds in (("a", 100.0), ("b", 100.0), ("c", 200.0))}
    progress = RunProgress(cells, is_recorded=True, clock=clock)
    assert progress.counts.left == pytest.approx(400)
    clock.now = 100.0
    finish(progress, "a")
    assert progress.counts.left == pytest.approx(300)
    assert (progress.counts.done, progress.counts.total) == (1, 3)
    clock.now = 320.0  # the second one took more than twice as long: this machine is slower
    finish(progress, "b", Status.FAILED)
    assert progress.counts.left == pytest.approx(200 * 340 / 220)
    assert progress.counts.failed == 1
    # Half of its tests are over.
    progress(CheckFinished(facts("c"), CheckOutcome("parity"), selected=2))
    assert progress.counts.left == pytest.approx(100 * 340 / 320)


def test_no_time_left_is_made_up() -> None:
    clock = Clock()
    cells = {("m", str(number)): ExpectedCell(str(number), 10.0) for number in range(50)}
    progress = RunProgress(cells, clock=clock)
    clock.now = 30.0
    assert progress.counts.left is None
    for number in range(5):
        finish(progress, str(number))
    assert progress.counts.left == pytest.approx(270)
    assert RunProgress({}, is_recorded=True, clock=clock).counts.left is None


def test_workers_share_models_not_cells() -> None:
    cells = {("m", f"big{number}"): ExpectedCell("big", 100.0) for number in range(3)}
    cells |= {("m", f"small{number}"): ExpectedCell(f"small{number}", 10.0) for number in range(6)}
    clock = Clock()
    assert RunProgress(cells, is_recorded=True, workers=4, clock=clock).counts.left == pytest.approx(300)
    assert RunProgress(cells, is_recorded=True, workers=1, clock=clock).counts.left == pytest.approx(360)


def test_tests_of_a_class_itself_are_no_cells() -> None:
    cells = {("m", "a"): ExpectedCell("a", 1.0, is_counted=False), ("m", "b"): ExpectedCell("a", 1.0)}
    progress = RunProgress(cells)
    finish(progress, "a")
    assert (progress.counts.done, progress.counts.total) == (0, 1)
