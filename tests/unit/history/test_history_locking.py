"""Who finds the file locked waits; who has waited too long is told by whom it is held."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history import BenchmarkDatabase
from tests.unit.history.store_samples import MEASUREMENTS, record

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def database(tmp_path: Path) -> BenchmarkDatabase:
    return BenchmarkDatabase(tmp_path / "a.duckdb", wait_s=0.2)


@pytest.fixture
def holder(database: BenchmarkDatabase, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open, until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(database.path), getattr(request, "param", "write")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        release(process)


def release(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()


def test_the_holder_is_named_after_the_wait(database: BenchmarkDatabase, holder: subprocess.Popen[str]) -> None:
    for use in (database.measurements, lambda: database.write_run(record())):
        with pytest.raises(ConfigError, match=rf"a\.duckdb: process {holder.pid} .*locked for 0\.2 s") as caught:
            use()
        assert "python" in caught.value.message
        assert "hfaccel db import" in str(caught.value)


def test_a_lock_that_is_given_up_is_waited_for(database: BenchmarkDatabase, holder: subprocess.Popen[str]) -> None:
    threading.Timer(0.3, release, [holder]).start()
    BenchmarkDatabase(database.path).write_run(record())
    assert database.measurements() == MEASUREMENTS


@pytest.mark.parametrize("holder", ["read"], indirect=True)
def test_readers_do_not_keep_readers_out(database: BenchmarkDatabase, holder: subprocess.Popen[str]) -> None:
    assert database.measurements() == []
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        database.write_run(record())


def test_a_connection_of_ones_own_is_told_apart(database: BenchmarkDatabase) -> None:
    with duckdb.connect(str(database.path)), pytest.raises(ConfigError, match="this process itself has kept"):
        database.measurements()
    assert database.measurements() == []


def test_threads_take_turns(tmp_path: Path) -> None:
    database = BenchmarkDatabase(tmp_path / "a.duckdb")
    problems: list[BaseException] = []

    def work() -> None:
        try:
            database.write_run(record(cells=[]))
            database.measurements()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert database.measurements() == 4 * MEASUREMENTS


def test_a_use_inside_another_one_ends_with_an_error(database: BenchmarkDatabase) -> None:
    from pytest_hfaccel.history.connection import connected

    with (
        connected(database.path, write=False),
        pytest.raises(ConfigError, match="another thread of this process"),
    ):
        database.measurements()
