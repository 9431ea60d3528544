"""`--hf-isolate`: the tests of each model run in a process of their own, without pytest-xdist.

A crash or a hang then costs one cell. The process is forked from this one, which has collected and imported everything
and used no device, where that is safe (`why_not_fork`); else one is started that collects again, as a worker of
pytest-xdist does. It sends what pytest reports, and this process tells it on: terminal, reports, JUnit and database are
those of a run without processes.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pytest_hfaccel.core.devices import kind_named
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.plugin.processes.crashes import DEVICE_LOST, CrashReports, NoteKeeper, kill_late, read_death
from pytest_hfaccel.plugin.reporting import PROPERTY, reporters_of
from pytest_hfaccel.plugin.state import CELL_TEST, NOTES, OPTIONS, SUSPECTS, WORKER_INPUT, session_of
from pytest_hfaccel.upstream.openvino import silent_import
from pytest_hfaccel.upstream.pytest_benchmark import add_entries, take_entries

_SECONDS_TO_END = 10.0
"""How long a process that is told to end may take to free its fixtures before it is killed."""

_OPEN_DEVICE = re.compile(r"/dev/(nvidia-uvm|kfd|dri/render|accel)")
"""What a process has open that has started CUDA, ROCm, Level Zero or an NPU's driver."""

_WARM = (
    *("torch", "transformers", "safetensors.torch"),
    *("pytest_hfaccel.checkpoints.build", "pytest_hfaccel.numerics.reference", "pytest_hfaccel.engine.runner"),
)


def is_isolated(config: pytest.Config) -> bool:
    """Whether this process runs the tests of each model in another one.

    Raises:
        pytest.UsageError: That cannot be done together with another option.
    """
    options = config.stash[OPTIONS]
    asked = bool(options.isolate or options.timeout)
    if not asked or hasattr(config, "workerinput") or config.getoption("dist", "no") != "no":
        return False
    if config.getoption("usepdb", False) or config.getoption("trace", False):
        name = options.source_of("isolate" if options.isolate else "timeout")
        raise pytest.UsageError(
            f"{name} runs tests in other processes, where --pdb and --trace cannot stop: leave one of them out."
        )
    return True


class IsolatedRun:
    """The loop over all tests, each model's in a process.

    Args:
        session: pytest's session, which has collected.
    """

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._config = session.config
        self._reports = CrashReports(session.config)
        self._suspects: set[str] = set()
        self._started = 0
        self._not_begun: str = ""
        self._no_fork = ""
        self._directory = Path()

    def run(self) -> None:
        """Run all tests.

        Raises:
            pytest.Session.Failed: Enough tests have failed (`-x`, `--maxfail`).
            pytest.Session.Interrupted: The run is to stop.
        """
        self._config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # private: one for all processes
        self._warm_up()
        self._no_fork = why_not_fork()
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if self._no_fork and terminal is not None:
            terminal.write_line(f"hfaccel: each model's process starts anew, not as a fork: {self._no_fork}")
        with TemporaryDirectory(prefix="hfaccel-") as directory:
            self._directory = self._config.stash[NOTES] = Path(directory)
            for group in groups_of(self._session.items):
                left = group
                while left:
                    left = self._run_in_a_process(left)
                    if self._session.shouldfail:
                        raise self._session.Failed(self._session.shouldfail)
                    if self._session.shouldstop:
                        raise self._session.Interrupted(self._session.shouldstop)

    def _warm_up(self) -> None:
        """Import what the tests are going to need, and start nothing, so that each fork has it."""
        # Asked otherwise whether there is a GPU, torch starts CUDA, and no fork could use it.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        tests = (item.stash.get(CELL_TEST, None) for item in self._session.items)
        kinds = dict.fromkeys(test.cell.device.kind for test in tests if test is not None)
        backends = session_of(self._config).backends
        for kind in kinds:
            with suppress(Exception), silent_import():  # the test that needs it says what is wrong
                if kind != "class":
                    backends.for_kind(kind)
                if kind == "class" or kind_named(kind).traits.needs_checkpoint:
                    for name in _WARM:
                        importlib.import_module(name)
        gc.collect()
        gc.freeze()  # what the collector does not touch stays shared with the forks

    def _run_in_a_process(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """Run tests of one model in a process, and return those that it left."""
        self._started += 1
        name = f"process{self._started}"
        running: str = ""
        done: set[str] = set()
        by_id = {item.nodeid: item for item in items}
        progress = self._config.pluginmanager.getplugin("hfaccel-progress")
        child = self._start(name, items)
        try:
            limit = self._config.stash[OPTIONS].timeout
            for message in child.messages():
                if progress is not None:
                    progress.refresh()
                if message is None:
                    if limit:
                        kill_late(self._directory)
                    continue
                kind, *data = message
                if kind == "start":
                    running = data[0]
                elif kind == "finish":
                    running = ""
                    done.add(data[0])
                self._tell(kind, data, by_id)
                if kind == "finish" and (self._session.shouldfail or self._session.shouldstop):
                    break
            code = child.wait() if not (self._session.shouldfail or self._session.shouldstop) else child.end()
        finally:
            child.end()
        left = [item for item in items if item.nodeid not in done]
        if self._session.shouldfail or self._session.shouldstop or (code == 0 and not left):
            return []
        return self._after_death(name, code, running, items, left)

    def _start(self, name: str, items: list[pytest.Item]) -> _Child:
        suspects = sorted(self._suspects)
        if not self._no_fork:
            work = _ForkedWork(self._session, items, self._directory, name, suspects)
            return _Child(multiprocessing.get_context("fork"), _serve_forked, work)
        config = self._config
        spawned = _SpawnedWork(
            [str(argument) for argument in config.invocation_params.args],
            str(config.invocation_params.dir),
            [item.nodeid for item in items],
            str(self._directory),
            name,
            {WORKER_INPUT: session_of(config).plan.to_bytes(), SUSPECTS: suspects, "workerid": name, "workercount": 1},
            str(config._tmp_path_factory.getbasetemp() / name),  # type: ignore[attr-defined]
        )
        return _Child(multiprocessing.get_context("spawn"), _serve_spawned, spawned)

    def _tell(self, kind: str, data: Sequence[Any], by_id: dict[str, pytest.Item]) -> None:
        """Pass on what a process has sent."""
        hook = self._config.hook
        if kind in ("start", "finish"):
            what = "pytest_runtest_logstart" if kind == "start" else "pytest_runtest_logfinish"
            getattr(by_id[data[0]].ihook, what)(nodeid=data[0], location=data[1])
        elif kind == "report":
            report = hook.pytest_report_from_serializable(config=self._config, data=data[0])
            self._reports.note(report)
            by_id[report.nodeid].ihook.pytest_runtest_logreport(report=report)
        elif kind == "warning":
            message, when, nodeid, location = data
            hook.pytest_warning_recorded.call_historic(
                kwargs={"warning_message": message, "when": when, "nodeid": nodeid, "location": location}
            )
        elif kind == "benchmarks":
            add_entries(self._config, data[0])
        elif kind == "end":
            stats, shouldfail, shouldstop = data
            if stats is not None:
                reporters_of(self._config).pool_stats.append(stats)
            self._session.shouldfail = shouldfail or self._session.shouldfail
            self._session.shouldstop = shouldstop or self._session.shouldstop
        elif kind == "exit":
            raise pytest.exit.Exception(*data)
        elif kind == "interrupted":
            raise KeyboardInterrupt
        elif kind == "error":
            raise RuntimeError(f"a process of --hf-isolate failed:\n{data[0]}")

    def _after_death(
        self, name: str, code: int, running: str, items: list[pytest.Item], left: list[pytest.Item]
    ) -> list[pytest.Item]:
        """Report what a process died of and what is not run because of it; return the tests that are."""
        death = read_death(self._directory, name, code)
        if code == DEVICE_LOST and not running:
            self._suspects |= {death.lost} - {""}
            return left
        if not running and left and self._not_begun != left[0].nodeid:
            self._not_begun = left[0].nodeid  # once may be an accident; twice, the next test is to blame
            return left
        culprit = running or (left[0] if left else items[-1]).nodeid
        self._suspects |= {self._reports.device_of(culprit)} - {""}
        item = next(item for item in items if item.nodeid == culprit)
        text = f"the process of this model crashed while running {culprit!r}"
        report = pytest.TestReport(culprit, item.location, {}, "failed", text, "???")  # type: ignore[arg-type]  # as xdist's
        self._reports.complete(report, death)
        self._reports.note(report)
        item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=culprit, location=item.location)
        cell = _cell_of(item)
        same = [one.nodeid for one in left if one is not item and cell is not None and _cell_of(one) == cell]
        reason = f"not run: its process died of {culprit!r}, a test of the same cell"
        if not (self._session.shouldfail or self._session.shouldstop):
            self._reports.end_unrun(same, Status.SKIPPED, reason)
        return [one for one in left if one is not item and one.nodeid not in same]


def groups_of(items: Sequence[pytest.Item]) -> list[list[pytest.Item]]:
    """The tests that share a process: those of a model, and all that belong to no model class."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        test = item.stash.get(CELL_TEST, None)
        groups.setdefault(test.cell.model.slug if test is not None else "", []).append(item)
    return list(groups.values())


def _cell_of(item: pytest.Item) -> tuple[str, str] | None:
    test = item.stash.get(CELL_TEST, None)
    return (str(item.path), test.cell.id) if test is not None else None


def why_not_fork(proc: Path = Path("/proc/self")) -> str:
    """Return why a fork of this process could hang, or could not use its devices; empty where it is safe.

    A fork has one thread only: it waits forever for what another one of its parent held, or was to compute. OpenBLAS
    alone starts its threads when it is loaded, and again in a fork.

    Args:
        proc: The process's folder in procfs.
    """
    if "fork" not in multiprocessing.get_all_start_methods() or not (proc / "task").is_dir():
        return f"{sys.platform} has no fork that is known to be safe"
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        return f"this process has other threads ({names})"
    others = len(list((proc / "task").iterdir())) - 1
    if others != _openblas_threads(proc) and others != 0:
        return f"libraries have started {others} threads in this process"
    for file in (proc / "fd").iterdir():
        with suppress(OSError):
            if _OPEN_DEVICE.match(str(file.readlink())):
                return f"this process uses a device ({file.readlink()})"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "torch has started CUDA in this process"
    return ""


def _openblas_threads(proc: Path) -> int:
    """How many threads the copies of OpenBLAS in this process (numpy's, scipy's) have started."""
    maps = (proc / "maps").read_text(encoding="utf-8", errors="replace")
    copies = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "openblas" in line.lower()}
    asked = (os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"))
    number = next((int(text) for text in asked if text and text.isdecimal()), 0)
    return len(copies) * (min(number or sys.maxsize, len(os.sched_getaffinity(0))) - 1)


class _Child:
    """A process that runs tests, and everything that it starts.

    Args:
        context: How it is started.
        serve: What it does, with the connection that it sends to, the end of it that is ours, and `work`.
        work: The tests.
    """

    def __init__(self, context: Any, serve: Any, work: Any) -> None:
        self._messages, far_end = context.Pipe()
        is_fork = context.get_start_method() == "fork"
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._process = context.Process(target=serve, args=(far_end, self._messages if is_fork else None, work))
        self._process.start()
        far_end.close()
        self._code: int | None = None

    def messages(self) -> Iterator[Any]:
        """Yield what it sends, `None` every second in which it sends nothing, until it ends."""
        while True:
            ready = wait([self._messages, self._process.sentinel], timeout=1.0)
            if not ready:
                yield None
                continue
            try:
                if self._messages.poll():
                    yield self._messages.recv()
                    continue
            except (EOFError, OSError):
                return
            return  # it has ended; what it started may hold its end of the connection

    def wait(self) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        if self._code is None:
            wait([self._process.sentinel], timeout=_SECONDS_TO_END)
            self.kill()  # also what it has started, and left behind
            self._process.join()
            self._code = self._process.exitcode or 0
        return self._code

    def end(self) -> int:
        """Tell it to end, and wait; kill it if it does not."""
        if self._code is None and not wait([self._process.sentinel], timeout=0):
            self._process.terminate()
        code = self.wait()
        self._messages.close()
        return code

    def kill(self) -> None:
        """Kill it and what it has started. It is not waited for, so its number is not taken by another process."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError, AttributeError):  # before it has a group; no groups on this system
            with suppress(ProcessLookupError):
                self._process.kill()


def _live_with_parent(connection: Connection) -> None:
    """Make the process the head of a group, and end the group when its parent dies."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)

    def watch() -> None:
        with suppress(EOFError, OSError):
            connection.recv()
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="hfaccel-parent").start()


@dataclass(eq=False)
class _Relay:
    """Sends what pytest reports in this process to the one that has started it."""

    config: pytest.Config
    connection: Connection

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self.connection.send(("start", nodeid, location))

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        if entries := take_entries(self.config):
            self.connection.send(("benchmarks", entries))
        self.connection.send(("finish", nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.connection.send(("report", data))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        try:
            self.connection.send(("warning", warning_message, when, nodeid, location))
        except Exception:  # whatever pickle says of what the warning holds
            told = warnings.WarningMessage(
                UserWarning(str(warning_message.message)), UserWarning, warning_message.filename, warning_message.lineno
            )
            self.connection.send(("warning", told, when, nodeid, location))

    def replace_reporters(self, session: pytest.Session) -> None:
        """Have only pytest's session, which counts failures, and this object told of tests and warnings."""
        plugins = self.config.pluginmanager
        plugins.register(self, "hfaccel-relay")
        for name in ("runtest_logstart", "runtest_logfinish", "runtest_logreport", "warning_recorded"):
            caller = getattr(self.config.hook, f"pytest_{name}")
            others = [one.plugin for one in caller.get_hookimpls() if one.plugin not in (session, self)]
            if name == "warning_recorded":  # a historic hook, for which pluggy makes no subset
                for plugin in others:
                    caller._remove_plugin(plugin)
            else:
                setattr(self.config.hook, f"pytest_{name}", plugins.subset_hook_caller(f"pytest_{name}", others))


@dataclass
class _ForkedWork:
    session: pytest.Session
    items: list[pytest.Item]
    directory: Path
    name: str
    suspects: list[str]


def _serve_forked(connection: Connection, parents_end: Connection, work: _ForkedWork) -> None:
    """Run tests in a fork, and end it."""
    parents_end.close()
    _live_with_parent(connection)
    session, config = work.session, work.session.config
    try:
        _Relay(config, connection).replace_reporters(session)
        session_of(config).suspects |= set(work.suspects)
        config.pluginmanager.register(NoteKeeper(config, work.directory, work.name), "hfaccel-notes")
        try:
            run_items(session, work.items)
        finally:
            config.pluginmanager.getplugin("runner").pytest_sessionfinish(session)  # frees what fixtures hold
        stats = session_of(config).close()
        connection.send(("end", stats, session.shouldfail, session.shouldstop))
    except pytest.exit.Exception as error:
        connection.send(("exit", error.msg, error.returncode))
    except KeyboardInterrupt:
        connection.send(("interrupted",))
    except BaseException:
        connection.send(("error", traceback.format_exc()))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)  # without taking apart what the parent goes on using


def run_items(session: pytest.Session, items: Sequence[pytest.Item]) -> None:
    """Run tests one after the other, until enough have failed."""
    for number, item in enumerate(items, 1):
        following = items[number] if number < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:
            return


@dataclass(frozen=True)
class _SpawnedWork:
    arguments: list[str]
    invocation_directory: str
    nodeids: list[str]
    directory: str
    name: str
    workerinput: dict[str, Any]
    basetemp: str


@dataclass(eq=False)
class _SpawnedRun:
    """The plugin of a process that starts anew: pytest takes it for a worker of pytest-xdist."""

    connection: Connection
    work: _SpawnedWork
    terminal: int
    has_run: bool = False
    config: Any = field(default=None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: Any) -> None:
        self.config = config
        config.workerinput, config.workeroutput = self.work.workerinput, {}
        config.option.basetemp = self.work.basetemp

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        by_id = {item.nodeid: item for item in session.items}
        missing = [nodeid for nodeid in self.work.nodeids if nodeid not in by_id]
        if missing:
            raise RuntimeError(f"collected something else than the process that started this one: no {missing[0]}")
        config = session.config
        config.pluginmanager.unregister(name="terminalreporter")
        sys.stdout.flush()
        os.dup2(self.terminal, 1)
        _Relay(config, self.connection).replace_reporters(session)
        config.pluginmanager.register(NoteKeeper(config, Path(self.work.directory), self.work.name), "hfaccel-notes")
        self.has_run = True
        run_items(session, [by_id[nodeid] for nodeid in self.work.nodeids])
        return True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.has_run:
            import json

            stats = json.loads(self.config.workeroutput.get(PROPERTY, "null"))
            self.connection.send(("end", stats, session.shouldfail, session.shouldstop))


def _serve_spawned(connection: Connection, _: None, work: _SpawnedWork) -> None:
    """Collect, and run tests."""
    _live_with_parent(connection)
    os.chdir(work.invocation_directory)
    output = Path(work.directory) / f"{work.name}.start"
    terminal = os.dup(1)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
    run = _SpawnedRun(connection, work, terminal)
    code = pytest.main(work.arguments, plugins=[run])
    if code == pytest.ExitCode.INTERRUPTED:
        connection.send(("interrupted",))
    elif not run.has_run or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.stdout.flush()
        told = output.read_text(encoding="utf-8", errors="replace")[-4000:]
        connection.send(("error", f"pytest ended with exit code {int(code)}\n{told}"))
    os._exit(0)
