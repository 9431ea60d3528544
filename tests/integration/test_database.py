"""The benchmark database in the hands of several processes, of killed ones, and of a full disk."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.history import BenchmarkDatabase
from tests.forkserver import ForkedPopen
from tests.harness import environment
from tests.unit.history.store_samples import MEASUREMENTS, record
from tests.unit.history.test_history_migration import TABLES_1, VERSION_1

ROOT = Path(__file__).parents[2]
PROCESSES, RUNS = 4, 2
FRACTIONS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""When a process is killed, as shares of the time its work takes undisturbed."""
FEW = FRACTIONS[::2]

START = """
import sys
from pathlib import Path
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.core.errors import ConfigError
from tests.unit.history.store_samples import record
import duckdb
path = Path(sys.argv[1])
print("ready", flush=True)
"""
WRITE = """
for _ in range(int(sys.argv[2])):
    database = BenchmarkDatabase(path)
    print(database.write_run(record()), flush=True)
    database.measurements()
"""
TRY = """
try:
    {}
    print("done")
except ConfigError as error:
    print(error)
"""


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process, and wait until it has imported what it needs."""
    command = [sys.executable, "-c", START + code, *map(str, arguments)]
    started = ForkedPopen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(ROOT)
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def finish(started: subprocess.Popen[str]) -> str:
    """Wait for a process and return what it printed."""
    output, errors = started.communicate(timeout=240)
    assert started.returncode == 0, errors
    return output


def undisturbed(code: str, *arguments: object) -> float:
    """The seconds a process takes for its work."""
    started = process(code, *arguments)
    began = time.monotonic()
    finish(started)
    return time.monotonic() - began


def kill_after(seconds: float, code: str, *arguments: object) -> tuple[str, bool]:
    """Kill a process in the middle of its work; return what it printed, and whether it was still at it."""
    started = process(code, *arguments)
    time.sleep(seconds)
    started.kill()
    output, _ = started.communicate(timeout=60)
    return output, started.returncode != 0


def assert_whole(path: Path, runs: set[int]) -> None:
    """The file opens, holds these runs, and every run in it is complete."""
    database = BenchmarkDatabase(path, create=False)
    present = set(database.frame("test_runs").run_id)
    assert runs <= present
    assert database.measurements() == len(present) * MEASUREMENTS
    for table, each in (
        ("performance_batch_results", 3),
        ("hardware_compatibility", 1),
        ("integration_test_results", 3),
        ("integration_test_assertions", 4),
        ("device_calibrations", 1),
    ):
        assert len(database.frame(table)) == each * len(present), table


def test_several_runs_at_once_all_land(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"  # made by whoever is first
    together = [process(WRITE, path, RUNS) for _ in range(PROCESSES)]
    numbers = [int(number) for each in together for number in finish(each).split()]
    assert len(set(numbers)) == len(numbers) == PROCESSES * RUNS
    assert_whole(path, set(numbers))
    assert len(BenchmarkDatabase(path).frame("models")) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["a.duckdb"]


@pytest.mark.parametrize(
    "fractions", [pytest.param(FEW, id="few"), pytest.param(FRACTIONS, id="many", marks=pytest.mark.nightly)]
)
def test_a_kill_in_the_middle_of_a_write_loses_nothing_committed(tmp_path: Path, fractions: Sequence[float]) -> None:
    path = tmp_path / "a.duckdb"
    BenchmarkDatabase(path)
    seconds = undisturbed(WRITE, path, 1)
    runs = set(BenchmarkDatabase(path).frame("test_runs").run_id)
    interrupted = 0
    for fraction in fractions:
        output, was_at_it = kill_after(fraction * seconds, WRITE, path, 100)
        runs |= {int(number) for number in output.split()}
        interrupted += was_at_it
        assert_whole(path, runs)
    assert interrupted == len(fractions)
    runs.add(BenchmarkDatabase(path).write_run(record()))
    assert_whole(path, runs)


def test_a_kill_while_the_file_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    seconds = undisturbed("BenchmarkDatabase(path)", tmp_path / "first.duckdb")
    made = set()
    for number, fraction in enumerate(FEW):
        path = tmp_path / str(number) / "a.duckdb"
        kill_after(fraction * seconds, "BenchmarkDatabase(path)", path)
        made.add(path.exists())
        BenchmarkDatabase(path).write_run(record())
        assert_whole(path, {1})
    assert False in made


def test_a_kill_in_the_middle_of_a_migration_keeps_all_rows(tmp_path: Path) -> None:
    def old(name: str) -> Path:
        with duckdb.connect(str(tmp_path / name)) as connection:
            connection.execute(VERSION_1)
        return tmp_path / name

    def rows(path: Path) -> list[int]:
        with duckdb.connect(str(path), read_only=True) as connection:
            counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES_1]  # noqa: S608
        return [count[0] for count in counts if count]

    first = old("first.duckdb")
    expected = rows(first)
    seconds = undisturbed("BenchmarkDatabase(path)", first)
    for number, fraction in enumerate(FEW):
        path = old(f"{number}.duckdb")
        kill_after(fraction * seconds, "BenchmarkDatabase(path)", path)
        assert rows(path) == expected
        BenchmarkDatabase(path)
        assert rows(path) == expected


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A database of one run."""
    path = tmp_path / "a.duckdb"
    BenchmarkDatabase(path).write_run(record())
    return path


def limited(code: str, path: Path, most_bytes: int) -> str:
    """What a process prints that cannot write a file of more than so many bytes, as on a full disk."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most_bytes}, {resource.RLIM_INFINITY}))"
    return finish(process(limit + TRY.format(code), path))


def test_a_full_disk_is_told_and_what_was_committed_is_kept(full: Path) -> None:
    big = "BenchmarkDatabase(path).write_run(record(cells=record().cells * 3000))"
    for most_bytes in (1024, 2**14, 2**20, full.stat().st_size + 2**12):
        printed = limited(big, full, most_bytes)
        assert "a.duckdb: there is no space left" in printed
        assert "Free space" in printed
        assert_whole(full, {1})
    assert BenchmarkDatabase(full).write_run(record()) > 1


def test_a_full_disk_while_the_file_is_made_leaves_nothing(tmp_path: Path) -> None:
    printed = limited("BenchmarkDatabase(path)", tmp_path / "a.duckdb", 4096)
    assert "a.duckdb: there is no space left" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_during_an_export_keeps_the_old_file(full: Path) -> None:
    target = full.with_name("m.parquet")
    [before] = [path.read_bytes() for path in BenchmarkDatabase(full).export_parquet(target)]
    printed = limited(f"BenchmarkDatabase(path).export_parquet({str(target)!r})", full, 1024)
    assert "m.parquet: there is no space left" in printed
    assert target.read_bytes() == before
    assert {path.name for path in full.parent.iterdir()} == {"a.duckdb", "m.parquet"}
