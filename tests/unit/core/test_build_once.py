"""A built directory is complete or not there, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.files import build_once

SLOW_BUILD = """
import sys, time
from pathlib import Path
from pytest_hfaccel.core.files import build_once

def build(target):
    (target / "first").write_text("x")
    with Path(sys.argv[2]).open("a") as log:
        log.write("built\\n")
    time.sleep(float(sys.argv[3]))
    (target / "last").write_text("x")

build_once(Path(sys.argv[1]), build)
"""


def slow_build(directory: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(directory), str(log), str(seconds)])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def what_is_there(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.parent.iterdir() if path.suffix != ".lock")


def test_it_builds_once(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(target: Path) -> None:
        built.append(target)
        (target / "file").write_text("content")

    for _ in range(2):
        build_once(tmp_path / "deep" / "model", build)
    assert len(built) == 1
    assert (tmp_path / "deep" / "model" / "file").read_text() == "content"


def test_nothing_is_seen_before_it_is_complete(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    build_once(directory, lambda target: (target / "file").write_text(str(directory.exists())))
    assert (directory / "file").read_text() == "False"


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").write_text("x")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        build_once(tmp_path / "model", fail)
    assert what_is_there(tmp_path / "model") == []
    build_once(tmp_path / "model", lambda _: None)
    assert what_is_there(tmp_path / "model") == ["model"]


def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target / "model.safetensors"))

    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be written: No space left.*\nFree space"):
        build_once(tmp_path / "model", fail)
    assert what_is_there(tmp_path / "model") == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(CheckpointError, match=r"file/cache cannot be written: Not a directory[^\0]*--hf-cache"):
        build_once(tmp_path / "file" / "cache" / "model", lambda _: None)


def test_two_processes_share_one_build(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [slow_build(tmp_path / "cache" / "model", log, 0.5) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert log.read_text().splitlines() == ["built"]
    assert (tmp_path / "cache" / "model" / "last").exists()


def test_a_killed_build_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    directory, log = tmp_path / "cache" / "model", tmp_path / "log"
    process = slow_build(directory, log, 60)
    wait_for(log)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert len(what_is_there(directory)) == 1, "the killed build leaves its half behind"
    assert not directory.exists()
    build_once(directory, lambda target: (target / "whole").write_text("x"))
    assert what_is_there(directory) == ["model"]
