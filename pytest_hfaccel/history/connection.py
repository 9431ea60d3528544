"""Opens the database file for a moment, and explains DuckDB's errors.

DuckDB lets one process write, or several read. So that several runs can use one file, every operation opens it, does
its work and closes it. Whoever finds it locked waits and tries again. The file must never be opened by other means in
this process: closing any descriptor of a file drops the lock a process has on it (POSIX, fcntl(2)).
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, first_line

WAIT_S = 60.0
"""How long a locked file is waited for. A write takes less than a second, also one of thousands of rows."""
_PAUSE_S = (0.01, 0.2)
_LOCKED = ("could not set lock", "being used by another process", "with a different configuration than existing")
_LONGEST_COMMAND = 100
# DuckDB would look for extensions in the network when it meets, say, an SQLite file.
_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}

_ANOTHER = "or name another file with BENCHMARK_DB_PATH"
_PROBLEMS = (
    (r"No magic bytes", "this file is damaged, or no Parquet file", "Export it again with `hfaccel db export`."),
    (r"No files found", "there is no such file", "Name a file or a directory of `hfaccel db export`."),
    (r"not a valid DuckDB|sqlite_scanner", "this file is not a DuckDB database", f"Move it away {_ANOTHER}."),
    (
        r"newer version of DuckDB|with version number|storage version|serialization version|older version",
        "this DuckDB cannot read the file's format",
        "Install the version of duckdb that wrote it, or a newer one.",
    ),
    (
        r"No space left|File too large|disk full|Disk quota|Could not write",
        "there is no space left",
        "Free space and write again; what was committed before is intact, and the reports of the run hold its results.",
    ),
    (
        r"Permission denied|[Rr]ead-only file system",
        "the permissions do not allow it",
        f"Change those of the file and its directory {_ANOTHER}.",
    ),
    (r"Is a directory", "this is a directory", f"Remove it {_ANOTHER}."),
    (
        r"No such file or directory|database does not exist",
        "there is no such file or directory",
        f"Make it {_ANOTHER}.",
    ),
    (
        r"[Cc]orrupt|checksum|Could not read (enough bytes|from file|all)|[Ff]ailed to deserialize|Serialization Error"
        r"|WAL|INTERNAL",
        "this file is damaged",
        "Nothing was changed. Copy the file, and the `.wal` beside it, away to keep what can be saved. Then bring back "
        f"a backup, {_ANOTHER}; `hfaccel db import` takes over a Parquet export or the `journal.jsonl` of a run.",
    ),
    (r"Constraint Error", "a row contradicts another one", "This is a mistake in the data: nothing was stored."),
)
"""What DuckDB's message says (the first pattern that fits counts), the problem in our words, and what to do."""

_threads: dict[Path, threading.Lock] = {}
"""A lock per file for the threads of this process: DuckDB's own lock is between processes."""


def require_database(path: Path, place: str, instead: str) -> None:
    """Refuse, before anything is measured or written, a database that cannot be.

    Args:
        path: The file.
        place: What named it, to begin the message with.
        instead: What to do without a database, to end the message with.

    Raises:
        ConfigError: It is a directory, or the package duckdb is not installed.
    """
    if path.is_dir():
        raise ConfigError(f"{place}: a directory; name a file in it.")
    if find_spec("duckdb") is None:
        raise ConfigError(
            f"{place}: the package duckdb is not installed.",
            hint=f"Install it with: pip install 'pytest-hfaccel[predict]', or {instead}.",
        )


def imported(name: str) -> Any:
    """Return the module `duckdb`, or `pandas`, which DuckDB imports by itself when it makes a frame.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the benchmark database needs the package {name}, which cannot be imported: {error}",
            hint="Install it with: pip install 'pytest-hfaccel[predict]'",
        ) from error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn DuckDB's errors inside the block into ours.

    Raises:
        ConfigError: DuckDB, or the file system under it, failed.
    """
    try:
        yield
    except imported("duckdb").Error as error:
        raise _explanation(path, "DuckDB", str(error)) from error
    except OSError as error:
        raise _explanation(path, "the system", error.strerror or str(error)) from error


@contextmanager
def connected(path: Path, *, write: bool, wait_s: float = WAIT_S) -> Iterator[Any]:
    """Open the database, and close it after the block.

    Raises:
        ConfigError: It stays locked, cannot be opened, is damaged or full; names the file and the next step.
    """
    deadline = time.monotonic() + wait_s
    lock = _threads.setdefault(path.resolve(), threading.Lock())
    if not lock.acquire(timeout=wait_s):
        raise ConfigError(
            f"{path}: another thread of this process has kept the database open for {wait_s:g} s",
            hint="Do not use the database inside a block that already has it open.",
        )
    try:
        with explained(path):
            connection = _open(path, write, deadline, wait_s)
            try:
                yield connection
            finally:
                connection.close()
    finally:
        lock.release()


@contextmanager
def transaction(path: Path, *, wait_s: float = WAIT_S) -> Iterator[Any]:
    """Open the database and keep all that the block writes, or nothing if it fails.

    Raises:
        ConfigError: See `connected`.
    """
    with connected(path, write=True, wait_s=wait_s) as connection:
        connection.execute("BEGIN")
        yield connection
        # Closing the connection without a commit rolls back.
        connection.execute("COMMIT")


def _open(path: Path, write: bool, deadline: float, wait_s: float) -> Any:
    duckdb = imported("duckdb")
    while True:
        # Processes that were locked out together must not come back together.
        pause = random.uniform(*_PAUSE_S)  # noqa: S311 - not for secrets
        try:
            return duckdb.connect(str(path.absolute()), read_only=not write, config=_CONFIG)
        except duckdb.Error as error:
            if not any(text in str(error).lower() for text in _LOCKED):
                raise
            if time.monotonic() + pause > deadline:
                raise ConfigError(
                    f"{path}: {_lock_holder(str(error))} has kept the database locked for {wait_s:g} s",
                    hint="DuckDB lets one process write at a time, and no other process read then. Wait until that "
                    "process is done, end it if it hangs, close the notebook or shell that has the file open, or name "
                    "another file with BENCHMARK_DB_PATH and bring both together later with `hfaccel db import`.",
                ) from error
        time.sleep(pause)


def _explanation(path: Path, who: str, message: str) -> ConfigError:
    quoted = f"{who}: {first_line(message)}"
    for pattern, problem, hint in _PROBLEMS:
        if re.search(pattern, message):
            return ConfigError(f"{path}: {problem} ({quoted})", hint=hint)
    return ConfigError(f"{path}: refused by {quoted}", hint="Nothing was changed: what was committed before is intact.")


def _lock_holder(message: str) -> str:
    """Name the process that holds the lock, as far as the system says."""
    found = re.search(r"\(PID (\d+)\)", message)
    if found is None:
        return "this process itself" if "different configuration" in message else "another process"
    import psutil

    pid = int(found[1])
    if pid == os.getpid():
        return "this process itself"
    try:
        process = psutil.Process(pid)
        command = " ".join(" ".join(process.cmdline()).split())[:_LONGEST_COMMAND]
        return f"process {pid} ({command or process.name()}, of {process.username()})"
    except psutil.Error:
        return f"process {pid}"
