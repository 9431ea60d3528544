"""Work in a fork: its result comes back, its death does not spread."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from pytest_hfaccel.campaign.processes import error_output, how_it_ended
from pytest_hfaccel.campaign.worker import Ended, run_in_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely with torch loaded")


def forked(work: Callable[[], dict[str, Any]], timeout: float = 60.0) -> tuple[dict[str, Any] | Ended, str]:
    with tempfile.TemporaryFile() as errors:
        return run_in_fork(work, timeout, errors), error_output(errors)


def test_a_result_comes_back_also_a_large_one() -> None:
    large = {"text": "x" * 300_000, "process": 0}
    found, said = forked(lambda: {**large, "process": os.getpid()})
    assert isinstance(found, dict)
    assert found["text"] == large["text"]
    assert found["process"] != os.getpid()
    assert said == ""


def test_a_signal_is_told_with_where_it_struck() -> None:
    def crash() -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGFPE)
        return {}

    found, said = forked(crash)
    assert found == Ended(-signal.SIGFPE)
    assert how_it_ended(-signal.SIGFPE) == "was killed by SIGFPE"
    assert "crash" in said, "Python's fault handler names the function"


def test_what_takes_too_long_is_killed() -> None:
    def sleep() -> dict[str, Any]:
        time.sleep(600)
        return {}

    assert forked(sleep, timeout=0.2)[0] == Ended(-signal.SIGKILL, timed_out=True)


def test_an_exception_and_an_exit_end_with_a_status() -> None:
    def fail() -> dict[str, Any]:
        raise ValueError("no")

    found, said = forked(fail)
    assert found == Ended(1)
    assert "ValueError: no" in said
    assert forked(lambda: os._exit(3))[0] == Ended(3)
    assert how_it_ended(3) == "exited with status 3"
    assert how_it_ended(-200) == "was killed by signal 200"
