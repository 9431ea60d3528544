"""A measuring process: how it is started, what it answers, how it ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self

from pytest_hfaccel.benchmark.points import NotMeasured
from pytest_hfaccel.core.results import Stage, Status

_FAULT = "Fatal Python error"
_SHOWN = 400
"""Characters of a dead process's last words that are told."""


class MeasuringProcess:
    """A process that serves one request. A context manager: it ends with the block, and with it all its forks.

    Args:
        request: The request as JSON.
        threads: CPU threads of the runtimes.
        errors: File its standard error goes to.
    """

    def __init__(self, request: str, threads: int, errors: IO[bytes]) -> None:
        self._errors = errors
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest_hfaccel.benchmark.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=process_environment(threads),
            text=True,
            # A group of its own: killing the process alone would leave the fork that measures running.
            start_new_session=True,
        )
        # Read in a thread, so that waiting for an answer can time out.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # it died at once: the missing answer says so
            self._process.stdin.write(request)
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()

    def answer(self, limit: float) -> dict[str, Any]:
        """Return the next answer; where none comes within `limit` seconds, an error in its place."""
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self._kill()
            return error_answer(Status.TIMEOUT, Stage.RUN, f"the measuring process did not answer within {limit:.0f} s")
        if line is None or not line.endswith("\n"):
            self._lines.put(None)  # for the answers after this one
            reason = f"the measuring process {how_it_ended(self._process.wait())}{last_words(self._errors)}"
            return error_answer(Status.CRASHED, Stage.LOAD, reason)
        found: dict[str, Any] = json.loads(line)
        return found

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def process_environment(threads: int) -> dict[str, str]:
    """Return the environment of a measuring process."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Without this, asking whether there is a GPU initialises CUDA, and a fork could not use it.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def error_answer(status: Status, stage: Stage, reason: str) -> dict[str, Any]:
    """Return an answer without a result; the reader knows which point it is about."""
    return {"error": NotMeasured(0, 0, status, stage, reason).to_json()}


def how_it_ended(code: int) -> str:
    """Say how a process ended, by its exit code as `subprocess` gives it: negative for a signal."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def last_words(errors: IO[bytes]) -> str:
    """Return the end of what a process wrote to its standard error, after a colon; empty where it wrote nothing.

    Of a crash that is the beginning of what Python's fault handler says, which names the innermost function first.
    """
    errors.seek(0)
    text = errors.read().decode(errors="replace").strip()
    fault = text.rfind(_FAULT)
    shown = text[-_SHOWN:] if fault < 0 else text[fault : fault + _SHOWN]
    return f": {shown}" if text else ""
