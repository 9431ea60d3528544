"""Opening the file for a moment: DuckDB lets one process write, or several read.

So that several runs can use one file, every operation opens it, does its work and closes it. Whoever finds it locked
waits and tries again. The file must never be opened by other means in this process: closing any descriptor of a file
drops the lock a process has on it (POSIX, fcntl(2)).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.store.packages import duckdb
from pytest_hfaccel.benchmark.store.problems import explain, explained, is_locked, locked
from pytest_hfaccel.errors import ConfigError

WAIT_S = 60.0
"""How long a locked file is waited for. A write takes less than a second, also one of thousands of rows."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.01, 0.25, 1.5
# DuckDB would look for extensions in the network when it meets, say, an SQLite file.
_CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}

_threads: dict[Path, threading.Lock] = {}
"""A lock per file for the threads of this process: DuckDB's own lock is between processes."""


@contextmanager
def connected(path: Path, *, write: bool, wait_s: float = WAIT_S) -> Iterator[Any]:
    """Open the database, and close it after the block.

    Args:
        path: The file; it exists.
        write: Whether the block writes.
        wait_s: How long to wait, in seconds, while another process has the file open.

    Raises:
        ConfigError: It stays locked, cannot be opened, is damaged or full; names the file and the next step.
    """
    deadline = time.monotonic() + wait_s
    with _alone(path, wait_s):
        connection = _open(path, write=write, deadline=deadline, wait_s=wait_s)
        try:
            with explained(path):
                yield connection
        finally:
            connection.close()


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


def _open(path: Path, *, write: bool, deadline: float, wait_s: float) -> Any:
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return duckdb().connect(str(path.absolute()), read_only=not write, config=_CONFIG)
        except duckdb().Error as error:
            if not is_locked(error):
                raise explain(path, error) from error
            if time.monotonic() + pause > deadline:
                raise locked(path, error, wait_s) from error
        # Processes that were locked out together must not come back together.
        time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - not for secrets
        pause = min(_LONGEST_PAUSE_S, _GROWTH * pause)


@contextmanager
def _alone(path: Path, wait_s: float) -> Iterator[None]:
    lock = _threads.setdefault(path.resolve(), threading.Lock())
    if not lock.acquire(timeout=wait_s):
        raise ConfigError(
            f"{path}: another thread of this process has kept the database open for {wait_s:g} s",
            hint="Do not use the database inside a block that already has it open.",
        )
    try:
        yield
    finally:
        lock.release()
