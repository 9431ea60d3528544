"""The progress of real runs in a real terminal: what is on the screen afterwards is what pytest prints without it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte
import pytest

from tests.harness import Project, environment

LINES, COLUMNS = 16, 100
PRINTING = """
import sys
import time

import pytest


@pytest.mark.parametrize("number", range(20))
def test_prints(number):
    print("whole line", number)
    sys.stdout.write(f"half a line {number} ")
    sys.stdout.flush()
    time.sleep(0.06)
"""


@dataclass
class Shown:
    """What a run showed.

    Attributes:
        code: The exit code.
        text: All lines, as scrolling back shows them when the run is over.
        frames: The rows at the bottom of the screen, each time they changed.
    """

    code: int
    text: list[str]
    frames: list[str]

    def section(self, beginning: str, end: str) -> list[str]:
        """The lines after the first one that contains a text, up to the next one that contains another."""
        first = next(at for at, line in enumerate(self.text) if beginning in line)
        last = next(at for at, line in enumerate(self.text) if end in line and at > first)
        return [line for line in self.text[first + 1 : last] if line]


def run_in_terminal(command: Sequence[str], directory: Path, env: dict[str, str], *, prompt: str = "") -> Shown:
    """Run a command in a terminal of its own, and look at the screen after each piece of output.

    A debugger, which has a prompt, is told to continue.
    """
    kept = {name: value for name, value in env.items() if name not in ("CI", "BUILD_NUMBER", "COLUMNS", "LINES")}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**kept, "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    screen = pyte.HistoryScreen(COLUMNS, LINES, history=5000)
    emulator = pyte.ByteStream(screen)
    frames: dict[str, None] = {}
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # what Linux says when nobody has the other end open
            break
        if not data:
            break
        emulator.feed(data)
        if prompt and prompt.encode() in data:
            assert screen.margins is None, "a debugger has the whole screen"
            os.write(master, b"continue\n")
        if screen.margins is not None:
            frames["\n".join(row.rstrip() for row in screen.display[screen.margins.bottom + 1 :])] = None
    os.close(master)
    code = process.wait(60)
    assert screen.margins is None, "the whole screen scrolls again"
    gone = ["".join(line[column].data for column in range(COLUMNS)) for line in screen.history.top]
    return Shown(code, [line.rstrip() for line in [*gone, *screen.display]], list(frames))


def show(project: Project, *arguments: str, **env: str) -> Shown:
    """Run the tests that print and those of two cells."""
    project.write("test_a_prints.py", PRINTING)
    selection = ("--hf-device", "fake:0,fake:1", "-k", "prints or placement")
    command = [argument for argument in project.command(*selection, *arguments) if argument != "-rA"]
    return run_in_terminal(command, project.directory, environment(project.cache, **env), prompt="(Pdb)")


PLACEMENT = "test_hf_bert.py::TestBert::test_placement[bert-base-uncased-fake{}-fp32]"


def test_printing_tests_and_whole_lines(project: Project) -> None:
    shown = show(project, "-v", "-s")
    assert shown.code == 0, shown.text
    lines = shown.section("weights tiny", "models x devices")
    assert lines[-2:] == [f"{PLACEMENT.format(number)} PASSED" for number in (0, 1)]
    printed = "".join(f"{line}\n" for line in lines[lines.index("test_a_prints.py::test_prints[0] whole line 0") : -2])
    assert printed == "".join(
        f"test_a_prints.py::test_prints[{number}] whole line {number}\nhalf a line {number} PASSED\n"
        for number in range(20)
    )
    first = [frame.splitlines()[0] for frame in shown.frames]
    assert any(re.match(r" 0/2 cells \| \d+ s \| memory: host [\d.]+ of \d+ GiB", line) for line in first), first
    assert any("test_a_prints.py::test_prints[" in frame for frame in shown.frames)


@pytest.mark.nightly
def test_dots_and_the_time_left_by_recorded_durations(project: Project) -> None:
    recorded = {PLACEMENT.format(number): 90.0 for number in (0, 1)}
    project.write(".test_durations", json.dumps(recorded))
    shown = show(project)
    assert any(re.match(r" 0/2 cells \| 0 s, about 3 min left \| ", frame) for frame in shown.frames), shown.frames
    lines = shown.section("weights tiny", "models x devices")
    assert [re.sub(r" +\[ *\d+%\]", "", line) for line in lines if " ." in line] == [
        "test_a_prints.py " + "." * 20,
        "test_hf_bert.py ..",
    ]
    assert shown.frames


@pytest.mark.nightly
def test_workers_have_a_row_each(project: Project) -> None:
    shown = show(project, "-n", "2", "-v")
    assert shown.code == 0
    lines = shown.section("scheduling tests", "models x devices")
    tests = [f"test_a_prints.py::test_prints[{number}]" for number in range(20)]
    tests += [PLACEMENT.format(number) for number in (0, 1)]
    # xdist says when a test begins, and when it has ended; nothing else is in these lines.
    assert sorted(line for line in lines if not line.startswith("[gw")) == sorted(tests)
    ended = [re.fullmatch(r"\[gw[01]\] \[ *\d+%\] PASSED (.*)", line) for line in lines if line.startswith("[gw")]
    assert sorted(match[1] for match in ended if match) == sorted(tests)
    assert len(lines) == 2 * len(tests)
    rows = {row for frame in shown.frames for row in frame.splitlines()}
    assert any(re.match(r"gw\d  bert-base-uncased-fake\d-fp32 placement \(\w+", row) for row in rows), rows
    assert any(re.match(r"gw\d  test_a_prints.py::test_prints\[\d+\]  \d s", row) for row in rows), rows


@pytest.mark.nightly
def test_a_process_per_model(project: Project) -> None:
    shown = show(project, "--hf-isolate", "-v")
    assert shown.code == 0
    text = "\n".join(shown.text)
    assert "each model's process starts anew" not in text, "a thread of ours would keep it from forking"
    assert any("bert-base-uncased-fake0-fp32 placement" in frame for frame in shown.frames)


@pytest.mark.nightly
@pytest.mark.parametrize("arguments", [("-q",), ("--hf-progress", "off")])
def test_quiet_when_asked(project: Project, arguments: Sequence[str]) -> None:
    shown = show(project, *arguments)
    assert shown.code == 0
    assert not shown.frames


@pytest.mark.nightly
def test_a_debugger_has_the_whole_terminal(project: Project) -> None:
    project.write("test_hf_stops.py", "def test_placement_of_nothing():\n    breakpoint()\n    assert True\n")
    shown = show(project, "-v")
    assert shown.code == 0
    text = "\n".join(shown.text)
    assert "PDB continue" in text
    assert "(Pdb) continue" in text
    assert shown.frames


@pytest.mark.nightly
def test_without_a_terminal_there_is_none(project: Project) -> None:
    run = project.run("--hf-device", "fake:0", "-k", "placement", TERM="xterm-256color")
    assert run.code == 0
    assert "\033" not in run.output


@pytest.mark.nightly
def test_a_benchmark_shows_its_steps(tmp_path: Path, shared_cache: Path) -> None:
    arguments = ["bench", "--models-set", "custom", "--custom-models", "bert-base-uncased", "--weights", "tiny"]
    arguments += ["--hardware", "cpu", "--batch-sizes", "1", "2", "--seq-lengths", "8", "--max-seconds", "1"]
    command = [sys.executable, "-m", "pytest_hfaccel", *arguments, "--no-db-store", "--no-plots"]
    shown = run_in_terminal(command, tmp_path, environment(shared_cache))
    assert shown.code == 0, shown.text
    rows = {row.partition("  ")[0] for frame in shown.frames for row in frame.splitlines()}
    assert "bert-base-uncased cpu fp32: verifying" in rows
    assert "bert-base-uncased cpu fp32: measuring batch 2 length 8" in rows
    assert any(re.match(r" 2/3 steps \| .* left", row) for row in rows), rows
    assert [line[:5] for line in shown.text if re.match(r"\[\d/3", line)] == ["[1/3]", "[2/3]", "[3/3]"]
