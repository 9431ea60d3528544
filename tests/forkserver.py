"""Python processes that start with the heavy packages imported: forks of a server that imported them once.

Of the 7 seconds that a run of pytest on a tiny BERT takes, 6 go into starting Python and importing torch and
transformers. A fork has an environment, a working directory, output and an end of its own, as a process has that
`subprocess` starts; what differs is `sys.modules`. Tests of what is imported when, and of variables that are read at
the import (`READ_EARLY`), need a new process.

Run as a script, this file is the server.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

READ_EARLY = (
    "COVERAGE_",
    "HF_",
    "HUGGINGFACE_",
    "LD_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
    "TORCH_",
    "TRANSFORMERS_",
)
"""Beginnings of the environment variables that Python, or a package that the server imports, reads when it starts."""

READ_LATE = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Those among them that a fork can have for itself."""

MODULES = (
    "torch",
    "openvino",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.pipelines",
    "duckdb",
    "pytest",
)

PLUGINS = ("anyio.pytest_plugin", "pytest_benchmark.plugin", "pytest_timeout", "xdist.plugin", "pytest_hfaccel.plugin")

_REQUEST_BYTES = 1 << 17


class ForkServer:
    """The server as its clients see it: a context manager; it starts with the first process that is asked of it.

    Args:
        environment: Its environment, and so what its packages read when they are imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._server: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can have this environment, in view of what was read before the fork."""
        measured = any(name.startswith("COVERAGE_") for name in environment)
        return hasattr(os, "pidfd_open") and not measured and _early(environment) == _early(self._environment)

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        given: str = "",
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Do what `subprocess.run([sys.executable, *arguments], text=True, capture_output=True)` does.

        Args:
            arguments: Arguments of Python: perhaps `-W` with its value; `-m`, `-c` or a file; its arguments.
            cwd: Working directory.
            environment: Environment; ask `can_start` first.
            given: Standard input.
            timeout: Seconds.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed.
        """
        request = json.dumps({"arguments": [*arguments], "cwd": str(cwd), "environment": dict(environment)}).encode()
        assert len(request) < _REQUEST_BYTES
        with (
            tempfile.TemporaryFile() as stdin,
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
        ):
            stdin.write(given.encode())
            stdin.seek(0)
            answers, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with answers:
                with far_end:
                    files = [file.fileno() for file in (stdin, stdout, stderr, far_end)]
                    socket.send_fds(self._channel(), [request], files)
                pid = _receive(answers)
                answers.settimeout(timeout)
                try:
                    code = _receive(answers)
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired([*arguments], timeout or 0) from None
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([sys.executable, *arguments], code, *texts)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server and self._requests:
            self._requests.close()
            self._server.wait()

    def _channel(self) -> socket.socket:
        if self._requests is None:
            self._requests, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with far_end:
                command = [sys.executable, __file__]
                self._server = subprocess.Popen(command, stdin=far_end.fileno(), env=self._environment)
        return self._requests


def _receive(answers: socket.socket) -> int:
    message = answers.recv(100)
    assert message, "the fork server died"
    return int(message)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_EARLY) and name not in READ_LATE and value
    }


def warm() -> None:
    """Import what takes long."""
    del sys.path[0]  # the directory of this file
    for name in MODULES:
        with suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(name)
    ours = importlib.import_module("pytest_hfaccel")
    for found in pkgutil.walk_packages(ours.__path__, "pytest_hfaccel."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for name in PLUGINS:
        with suppress(ImportError):
            importlib.import_module(name)
            # Otherwise pytest warns that it came too late to rewrite the assertions of a plugin.
            module = sys.modules[name.partition(".")[0]]
            module.__doc__ = f"{module.__doc__}\nPYTEST_DONT_REWRITE"
    gc.collect()
    gc.freeze()  # what the collector does not touch stays shared between the forks


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork for each request and send the process id, then how the process ended; until the requests' socket closes.

    Returns:
        In the fork: what was asked for.
    """
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fd in running:
                pid, answers = running.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                _send(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                answers.close()
                continue
            message, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 4)
            if not message:
                raise SystemExit
            answers = socket.socket(fileno=files.pop())
            if pid := os.fork():
                _send(answers, pid)
                end = os.pidfd_open(pid)
                selector.register(end, selectors.EVENT_READ)
                running[end] = pid, answers
            else:
                for number, file in enumerate(files):
                    os.dup2(file, number)
                for end, (_, others) in running.items():
                    os.close(end)
                    others.close()
                for ours in (selector, requests, answers):
                    ours.close()
            for file in files:
                os.close(file)
            if not pid:
                request: dict[str, Any] = json.loads(message)
                return request


def _send(answers: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # its client gave up
        answers.send(str(number).encode())


def become(request: dict[str, Any]) -> None:
    """Do what Python does with these arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    path = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [entry for entry in path if entry not in sys.path]
    for name in ("xdist.plugin", "xdist.workermanage"):  # they copy it when Python starts
        if name in sys.modules:
            vars(sys.modules[name])["_sys_path"] = list(sys.path)
    arguments = request["arguments"]
    while arguments[0] == "-W":
        action, _, category = arguments[1].partition("::")
        warnings.simplefilter(action, getattr(builtins, category or "Warning"))
        arguments = arguments[2:]
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        sys.path.insert(0, request["cwd"])
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))  # noqa: S102
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(kind).absolute().parent))
        runpy.run_path(kind, run_name="__main__")


def exit_as(request: dict[str, Any]) -> None:
    """Do what was asked for and exit, without taking apart a heap that goes away with the process."""
    code = 0
    try:
        become(request)
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does when it exits
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then close the socket
    requests = socket.socket(fileno=os.dup(0))
    server_module = sys.modules["__main__"]  # a fork gets another one, and this one must not be cleared
    warm()
    exit_as(serve(requests))
