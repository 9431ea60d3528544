"""Python processes that start with the heavy packages imported: forks of a server that imported them once.

Of the 7 seconds that a run of pytest on a tiny BERT takes, 6 go into starting Python and importing torch and
transformers. A fork has an environment, a working directory, output and an end of its own, as a process has that
`subprocess` starts; what differs is `sys.modules`. Tests of what is imported when, and of variables that are read at
the import (`READ_EARLY`), need a new process.

A fork starts its own children as forks, too (`replaced_starts`), so that the workers of pytest-xdist, and the processes
in which `hfaccel bench` measures, do not import everything again either. They are children of the server, and in its
process group: what signals a group, or looks for its children, needs a new process.

Run as a script, this file is the server.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import fcntl
import functools
import gc
import importlib
import inspect
import json
import multiprocessing.popen_spawn_posix
import multiprocessing.util
import os
import pkgutil
import resource
import runpy
import select
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
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IS_POSSIBLE = hasattr(os, "pidfd_open")
"""Whether there can be a server: on Linux."""

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

READ_LATE = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
"""Those among them that a fork can have for itself."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Numbers of threads; of these torch's, which the first gives, is set in each fork."""

MODULES = (
    "torch",
    "openvino",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.pipelines.fill_mask",
    # What a conversion takes: networkx, the modules of sixty models.
    "transformers.exporters.exporter_openvino",
    "transformers.exporters.exporter_onnx",
    "transformers.exporters.runners.runner_openvino",
    "openvino.frontend.pytorch",
    "onnxscript",
    "duckdb",
    "pytest",
)

PLUGINS = ("anyio.pytest_plugin", "pytest_benchmark.plugin", "pytest_timeout", "xdist.plugin", "pytest_hfaccel.plugin")

STARTS_NEW_PROCESSES = "TESTS_START_NEW_PROCESSES"
"""Environment variable of a fork whose own children are to be new processes, not forks."""

_REQUEST_BYTES = 1 << 17


class Connection:
    """How to reach the server: its address, and the environment it was started with.

    A client connects, sends a request with three files, and gets the id of the process, then the status it ended with.
    """

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self.address = address
        self._early = _early(environment)

    def adapted(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment that a fork can have: what was read before the fork is that of the server."""
        return {name: value for name, value in environment.items() if name not in _early(environment)} | self._early

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can have this environment, in view of what was read before the fork."""
        measured = any(name.startswith("COVERAGE_") for name in environment)
        return not measured and _early(environment) == self._early

    def start(
        self,
        arguments: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        files: Sequence[int],
        *,
        kept: Sequence[int] = (),
        new_session: bool = False,
        limits: Mapping[int, int] | None = None,
    ) -> tuple[int, socket.socket]:
        """Start a process.

        Args:
            arguments: Arguments of Python: perhaps `-B`, `-u`, `-W` with its value; `-m`, `-c` or a file; and its own.
            cwd: Working directory.
            environment: Environment; ask `can_start` first.
            files: Descriptors of its standard input, output and error.
            kept: Descriptors that it has under the same numbers.
            new_session: Whether it leads a session of its own.
            limits: Soft limits by constant of `resource`; its children do not have them.

        Returns:
            Its id, and the socket that tells how it ended.
        """
        request = {"arguments": [*arguments], "cwd": cwd, "environment": {**environment}, "session": new_session}
        message = json.dumps({**request, "kept": [*kept], "limits": {**(limits or {})}}).encode()
        assert len(message) < _REQUEST_BYTES
        answers = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answers.connect(self.address)
        socket.send_fds(answers, [message], [*files, *kept])
        return receive(answers), answers


class ForkServer:
    """The server, until `close`; it starts when the first client connects, from whichever process.

    Args:
        environment: Its environment, and so what its packages read when they are imported, with caches in this folder.
    """

    def __init__(self, environment: Callable[[Path], Mapping[str, str]]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forks-")
        self.address = str(Path(self._folder.name) / "server")
        self._environment = environment(Path(self._folder.name))
        self.hub_home = Path(self._environment["HF_HOME"])
        self._server: subprocess.Popen[bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.address)
        self._listener.listen()
        self._is_closed, self._close = os.pipe()
        self._waiter = threading.Thread(target=self._wait_for_a_client, daemon=True)
        self._waiter.start()

    def _wait_for_a_client(self) -> None:
        number = self._listener.fileno()
        if number in select.select([number, self._is_closed], [], [])[0]:
            without = {name: value for name, value in self._environment.items() if name not in THREADS}
            self._server = ForkedPopen(
                [sys.executable, __file__, str(number), self.address],
                stdin=subprocess.PIPE,
                env={**without, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[number],
                new_process=True,  # also while a test has `subprocess.Popen` replaced
            )
        self._listener.close()

    def close(self) -> None:
        """End the server, if it ever started."""
        os.close(self._close)
        self._waiter.join()
        os.close(self._is_closed)
        if self._server and self._server.stdin:
            self._server.stdin.close()  # which tells it to end
            self._server.wait()
        self._folder.cleanup()


class ForkedPopen(subprocess.Popen[Any]):
    """`subprocess.Popen`, which lets the server fork where Python is what it is to start, and nothing forbids it.

    Args:
        command: As of `subprocess.Popen`.
        new_process: Do not fork.
        limits: Soft limits by constant of `resource`.
        **options: As of `subprocess.Popen`.
    """

    server: Connection | None = None

    _answers: socket.socket | None = None

    def __init__(
        self,
        command: Any,
        *positional: Any,
        new_process: bool = False,
        limits: Mapping[int, int] | None = None,
        **options: Any,
    ) -> None:
        self._limits = limits or {}
        if new_process:
            self.server = None
        super().__init__(command, *positional, **options)

    def _execute_child(self, *arguments: Any) -> None:
        run = super()._execute_child  # type: ignore[misc]
        asked = inspect.signature(run).bind(*arguments).arguments
        given = asked["args"]
        environment = os.environ if asked["env"] is None else asked["env"]
        plain = not (asked["preexec_fn"] or asked["shell"] or asked["executable"])
        forks = (
            self.server is not None
            and plain
            and asked["process_group"] == -1
            and isinstance(given, list)
            and given[0] == sys.executable
            and _is_understood(given[1:])
            and self.server.can_start(environment)
        )
        if not forks or self.server is None:
            if self._limits:
                asked["preexec_fn"] = functools.partial(_limit, self._limits)
            run(*asked.values())
            return
        files = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        self.pid, self._answers = self.server.start(
            [os.fspath(argument) for argument in given[1:]],
            os.fspath(asked["cwd"] or Path.cwd()),
            environment,
            [number if file == -1 else file for number, file in enumerate(files)],
            kept=asked["pass_fds"],
            new_session=asked["start_new_session"],
            limits=self._limits,
        )
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in ends))  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._answers is None:
            found: tuple[int, int] = super()._try_wait(wait_flags)  # type: ignore[misc]
            return found
        if wait_flags & os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        with self._answers as answers:
            return self.pid, receive(answers)

    def _internal_poll(self, *arguments: Any, **named: Any) -> int | None:
        if self._answers is None:
            code: int | None = super()._internal_poll(*arguments, **named)  # type: ignore[misc]
            return code
        lock: threading.Lock = self._waitpid_lock  # type: ignore[attr-defined]
        if self.returncode is None and lock.acquire(blocking=False):
            try:
                if self.returncode is None:  # otherwise another thread waited
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
            finally:
                lock.release()
        return self.returncode


_spawned: dict[int, ForkedPopen] = {}


def spawn_forked(_path: bytes, command: Sequence[bytes | str], kept: Sequence[int]) -> int:
    """Start a process of the start method `spawn`, as `multiprocessing.util.spawnv_passfds` does; return its id."""
    process = ForkedPopen([os.fsdecode(argument) for argument in command], pass_fds=kept)
    _spawned[process.pid] = process
    return process.pid


def poll_forked(spawned: Any, flag: int = os.WNOHANG) -> int | None:
    """Do what `multiprocessing.popen_fork.Popen.poll` does, which knows only children of its own."""
    process = _spawned[spawned.pid]
    spawned.returncode = process.poll() if flag & os.WNOHANG else process.wait()
    return process.returncode


def replaced_starts() -> list[tuple[Any, str, Any]]:
    """What is to be replaced for processes to be started as forks: each with the name of its attribute, and by what."""
    return [
        (subprocess, "Popen", ForkedPopen),
        (multiprocessing.util, "spawnv_passfds", spawn_forked),
        (multiprocessing.popen_spawn_posix.Popen, "poll", poll_forked),
    ]


def _limit(limits: Mapping[int, int]) -> None:
    for what, most in limits.items():
        resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def receive(answers: socket.socket) -> int:
    """Wait for the next number that the server says."""
    message = answers.recv(100)
    assert message, "the fork server died"
    return int(message)


def _is_understood(arguments: Sequence[str]) -> bool:
    """Whether `become` knows Python's options among the arguments."""
    rest = list(arguments)
    while rest and rest[0] in ("-B", "-u", "-W"):
        del rest[: 2 if rest[0] == "-W" else 1]
    return bool(rest) and (rest[0] in ("-m", "-c") or not rest[0].startswith("-"))


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_EARLY) and name not in (*READ_LATE, *THREADS) and value
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
            with suppress(ImportError):  # of an extra, or of a release of a package that lacks what a backend needs
                importlib.import_module(found.name)
    for name in PLUGINS:
        with suppress(ImportError):
            importlib.import_module(name)
            # Otherwise pytest warns that it came too late to rewrite the assertions of a plugin.
            module = sys.modules[name.partition(".")[0]]
            module.__doc__ = f"{module.__doc__}\nPYTEST_DONT_REWRITE"
    _compute_what_is_kept()
    _forget_what_is_done_at_the_exit()
    gc.collect()
    gc.freeze()  # what the collector does not touch stays shared between the forks
    _join_pages()


def _join_pages() -> None:
    """Let the kernel join the 100,000 pages of the heap to large ones, where it can: a fork then takes a third."""
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        place, rights, _, _, file, *name = line.split()
        if rights.startswith("rw") and file == "0" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in place.split("-"))
            begin, end = -(-begin // _LARGE_PAGE) * _LARGE_PAGE, end // _LARGE_PAGE * _LARGE_PAGE
            if begin < end:
                libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_COLLAPSE)


_LARGE_PAGE = 1 << 21
_MADV_COLLAPSE = 25  # since Linux 6.1; an older one refuses it, and nothing is lost


def _compute_what_is_kept() -> None:
    """Compute what transformers and the plugin compute once per process, the same in each."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from pytest_hfaccel.registry import installed
    from pytest_hfaccel.reporting import run_facts

    get_checkpoint_conversion_mapping("bert")
    installed.require_class("BertModel")
    run_facts.installed_versions()


def _forget_what_is_done_at_the_exit() -> None:
    """Let a fork exit without what torch does at the exit: a report of the compiler, libraries that are taken apart."""
    atexit.unregister(sys.modules["torch._dynamo.utils"].dump_compile_times)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each request, and say how the process ended; until the standard input is closed.

    Returns:
        In the fork: what was asked for.
    """
    selector = selectors.DefaultSelector()
    for listened in (listener.fileno(), 0):
        selector.register(listened, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                raise SystemExit
            if key.fd in running:
                pid, answers = running.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                with answers:
                    _send(answers, os.waitpid(pid, 0)[1])
                continue
            answers = listener.accept()[0]
            message, files, _, _ = socket.recv_fds(answers, _REQUEST_BYTES, 20)
            if not message:
                answers.close()
                continue
            if pid := os.fork():
                end = os.pidfd_open(pid)
                selector.register(end, selectors.EVENT_READ)
                running[end] = pid, answers
                for file in files:
                    os.close(file)
                continue
            request: dict[str, Any] = json.loads(message)
            if request["session"]:
                os.setsid()
            _send(answers, os.getpid())  # which is the leader of its session by now
            for end, (_, others) in running.items():
                os.close(end)
                others.close()
            for ours in (selector, listener, answers):
                ours.close()
            moved = [fcntl.fcntl(file, fcntl.F_DUPFD, 200) for file in files]  # out of the way of the numbers they get
            for file in files:
                os.close(file)
            for file, number in zip(moved, (0, 1, 2, *request["kept"]), strict=True):
                os.dup2(file, number)
                os.close(file)
            _limit({int(what): most for what, most in request["limits"].items()})
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
    if threads := os.environ.get(THREADS[0]):
        sys.modules["torch"].set_num_threads(int(threads))
    if os.environ.pop(STARTS_NEW_PROCESSES, None) is None:
        for place, name, replacement in replaced_starts():
            setattr(place, name, replacement)
    path = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [entry for entry in path if entry not in sys.path]
    for name in ("xdist.plugin", "xdist.workermanage"):  # they copy it when Python starts
        if name in sys.modules:
            vars(sys.modules[name])["_sys_path"] = list(sys.path)
    arguments = request["arguments"]
    while arguments[0] in ("-B", "-u", "-W"):
        if arguments[0] == "-B":
            sys.dont_write_bytecode = True
            arguments = arguments[1:]
            continue
        if arguments[0] == "-u":
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(write_through=True)  # type: ignore[union-attr]
            arguments = arguments[1:]
            continue
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then close the standard input
    server_module = sys.modules["__main__"]  # a fork gets another one, and this one must not be cleared
    ForkedPopen.server = Connection(sys.argv[2], {**os.environ})
    warm()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        asked = serve(listener)
    exit_as(asked)
