"""A file that cannot be a database gives an error with file, problem and next step, and stays as it is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.history import BenchmarkDatabase
from tests.unit.history.store_samples import MEASUREMENTS, record

NEXT_STEP = "BENCHMARK_DB_PATH"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good database."""
    path = tmp_path_factory.mktemp("whole") / "a.duckdb"
    BenchmarkDatabase(path).write_run(record())
    return path.read_bytes()


def use(path: Path) -> None:
    """Read and write all there is."""
    database = BenchmarkDatabase(path)
    database.write_run(record())
    for table in ("performance_results", "integration_test_results", "measured_rows"):
        database.frame(table)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda _: b"", "not a DuckDB database"),
        (lambda _: b"these are notes\n" * 1000, "not a DuckDB database"),
        (lambda _: b"SQLite format 3\x00" + bytes(4096), "not a DuckDB database"),
        (lambda whole: whole[:100], "damaged"),
        (lambda whole: whole[:5000], "damaged"),
        (lambda whole: whole[:12288], "damaged"),
        (lambda whole: whole[: len(whole) // 2], "damaged"),
        (lambda whole: whole[:12288] + bytes(len(whole) - 12288), "damaged"),
    ],
    ids=["empty", "text", "sqlite", "header", "second header", "no blocks", "half", "hole"],
)
def test_a_damaged_file_is_named_and_kept(
    tmp_path: Path, whole: bytes, damage: Callable[[bytes], bytes], problem: str
) -> None:
    path = tmp_path / "b.duckdb"
    path.write_bytes(damage(whole))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"b\.duckdb: this file is {problem}") as caught:
        use(path)
    assert NEXT_STEP in (caught.value.hint or "")
    assert path.read_bytes() == before


def test_a_changed_byte_anywhere_is_an_error_or_harmless(tmp_path: Path, whole: bytes) -> None:
    # In one process of its own: a crash would end it.
    generator = random.Random(4)  # noqa: S311
    path = tmp_path / "b.duckdb"
    places = [generator.randrange(len(whole)) for _ in range(20)] + [generator.randrange(16384) for _ in range(10)]
    (tmp_path / "whole").write_bytes(whole)
    done = subprocess.run(
        [sys.executable, "-c", _FLIP, str(tmp_path / "whole"), str(path), *map(str, places)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    assert len(answers) == len(places)
    assert set(answers) <= {"damaged", "harmless"}
    assert "damaged" in answers


_FLIP = """
import sys
from pathlib import Path
from pytest_hfaccel.core.errors import ConfigError
from tests.unit.history.test_history_damage import use
whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for place in map(int, sys.argv[3:]):
    changed = bytearray(whole)
    changed[place] ^= 0xFF
    path.write_bytes(changed)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    try:
        use(path)
        print("harmless")
    except ConfigError as error:
        print("damaged" if "this file is damaged" in str(error) or "not a DuckDB" in str(error) else repr(error))
"""


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "b.duckdb").mkdir()
    with pytest.raises(ConfigError, match=r"b\.duckdb: this is a directory") as caught:
        BenchmarkDatabase(tmp_path / "b.duckdb")
    assert NEXT_STEP in str(caught.value)


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"b\.duckdb: refused by the system: (Not a directory|File exists)"):
        BenchmarkDatabase(tmp_path / "file" / "b.duckdb")


def test_a_missing_file_is_made_only_when_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b\.duckdb: there is no benchmark database"):
        BenchmarkDatabase(tmp_path / "b.duckdb", create=False)
    assert list(tmp_path.iterdir()) == []
    BenchmarkDatabase(tmp_path / "deep" / "b.duckdb")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["b.duckdb"]


def test_a_log_without_its_database_is_not_thrown_away(tmp_path: Path) -> None:
    log = tmp_path / "b.duckdb.wal"
    log.write_bytes(b"committed rows")
    with pytest.raises(ConfigError, match=r"b\.duckdb: the database is gone, but its write-ahead log"):
        BenchmarkDatabase(tmp_path / "b.duckdb")
    assert log.read_bytes() == b"committed rows"


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="Windows has other permissions")
def test_permissions_decide_who_reads_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "b.duckdb"
    BenchmarkDatabase(path).write_run(record())
    before = path.read_bytes()
    for mode, expected in ((0o444, "read: 3\nwrite: "), (0o000, "open: ")):
        path.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(path)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=Path(__file__).parents[3],
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{expected}"), done.stdout
        assert "b.duckdb: the permissions do not allow it" in done.stdout
    path.chmod(0o644)
    assert path.read_bytes() == before


_AS_NOBODY = """
import os, sys
from pathlib import Path
import duckdb
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.core.errors import ConfigError
from tests.unit.history.store_samples import record
path = Path(sys.argv[1])
for parent in path.parents:  # what pytest makes is closed to others
    if str(parent).startswith("/tmp/"):
        parent.chmod(0o755)
if os.geteuid() == 0:
    os.seteuid(65534)
step = "open"
try:
    database = BenchmarkDatabase(path)
    step = "read"
    print("read:", len(database.measurements()))
    step = "write"
    database.write_run(record())
except ConfigError as error:
    print(f"{step}: {error}")
"""


def test_what_duckdb_cannot_say_in_our_words_is_quoted(tmp_path: Path) -> None:
    database = BenchmarkDatabase(tmp_path / "b.duckdb")
    with duckdb.connect(str(database.path)) as connection:
        connection.execute("DROP TABLE performance_batch_results")
    with pytest.raises(ConfigError, match=r"b\.duckdb: refused by DuckDB: .*performance_batch_results"):
        database.write_run(record())


def test_an_error_of_the_caller_is_not_hidden(tmp_path: Path) -> None:
    database = BenchmarkDatabase(tmp_path / "b.duckdb")
    with pytest.raises(ValueError, match="Invalid isoformat"):
        database.write_run(record(completed_at="soon"))
    database.write_run(record())
    assert database.measurements() == MEASUREMENTS
