"""A function run in a fork of this process: its result comes back as JSON, its death as how it ended."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

_CHUNK = 1 << 16
_STANDARD_ERROR = 2


@dataclass(frozen=True)
class Ended:
    """A fork that gave no result.

    Attributes:
        code: Exit code as `subprocess` gives it: negative for a signal.
        timed_out: Whether it was killed for taking too long.
    """

    code: int
    timed_out: bool = False


def run_in_fork(work: Callable[[], dict[str, Any]], timeout: float, errors: IO[bytes]) -> dict[str, Any] | Ended:
    """Run a function in a fork.

    Args:
        work: Returns plain JSON. An exception it raises ends the fork with status 1.
        timeout: Seconds after which the fork is killed.
        errors: File the fork's standard error, and that of the libraries in it, goes to.
    """
    reading, writing = os.pipe()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work_and_exit(work, writing, errors)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        data = _read(pipe, time.monotonic() + timeout)
    if data is None:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if data is None:
        return Ended(code, timed_out=True)
    return json.loads(data) if code == 0 and data else Ended(code)


def _work_and_exit(work: Callable[[], dict[str, Any]], writing: int, errors: IO[bytes]) -> None:
    """Never returns: the fork must not run what comes after in its parent."""
    code = 1
    try:
        os.dup2(errors.fileno(), _STANDARD_ERROR)
        faulthandler.enable(file=_STANDARD_ERROR)  # the last words of a crash: where in Python it happened
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(work()).encode())
        code = 0
    except BaseException:
        os.write(_STANDARD_ERROR, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _read(pipe: IO[bytes], deadline: float) -> bytes | None:
    """Read until the other end is closed; `None` when the deadline comes first."""
    chunks: list[bytes] = []
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = pipe.read(_CHUNK)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
