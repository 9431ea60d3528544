"""`hfaccel db`."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from pytest_hfaccel.cli.results import database as command
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.reporting import Journal
from tests.unit.history.store_samples import MACHINE, MEASUREMENTS, cell, record
from tests.unit.history.test_history_migration import make


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of one run, which BENCHMARK_DB_PATH names."""
    BenchmarkDatabase(tmp_path / "a.duckdb").write_run(record())
    monkeypatch.setenv("BENCHMARK_DB_PATH", str(tmp_path / "a.duckdb"))
    return tmp_path / "a.duckdb"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of a run that measured."""
    header = {
        "started": "2026-01-31T12:00:00+00:00",
        "command": "pytest --hf-performance",
        "machine": MACHINE,
        "versions": {"torch": "2.13.0"},
        "commit": "abc123",
    }
    measures = {"measurements": [each.to_json() for each in MEASUREMENTS]}
    with_journal = Journal(tmp_path / "reports" / "journal.jsonl", header)
    with_journal.append(cell(checks=[CheckOutcome("performance", measures=measures)]))
    with_journal.close()
    return with_journal.path


def run(*arguments: str) -> int:
    """Run `hfaccel db` with arguments."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = parser.parse_args(["db", *arguments])
    return int(given.run(given))


def test_info_tells_what_there_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}: ")
    for line in (
        "schema version 2 (current)",
        "Last run: 2026-01-31T12:00:00 UTC",
        "  performance_results: 3\n",
        "  cuda: NVIDIA L4\n",
    ):
        assert line in printed


def test_info_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", "--json", "--db-path", str(path))
    found = json.loads(capsys.readouterr().out)
    assert found["rows"]["test_runs"] == 1
    assert found["devices"] == [{"kind": "cpu", "name": "AMD EPYC"}, {"kind": "cuda", "name": "NVIDIA L4"}]
    assert found["bytes"] == path.stat().st_size


def test_info_of_an_empty_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.duckdb"
    duckdb.connect(str(path)).close()
    run("info", "--db-path", str(path))
    assert "Last run: none\nDevices: none" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["info"], ["export", "out"], ["migrate"]])
def test_what_reads_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    with pytest.raises(ConfigError, match=r"hfaccel\.duckdb: there is no benchmark database"):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("target", ["out", "m.parquet"])
def test_export_and_import(tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    run("export", str(tmp_path / target))
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written
    assert all(each.is_file() for each in written)
    run("import", str(tmp_path / target), "--db-path", str(tmp_path / "b.duckdb"))
    assert "  performance_results: 3\n" in capsys.readouterr().out
    assert BenchmarkDatabase(tmp_path / "b.duckdb").measurements() == MEASUREMENTS


def test_import_of_another_database(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for new in (1, 0):
        run("import", str(path), "--db-path", str(tmp_path / "b.duckdb"))
        assert f"  test_runs: {new}\n" in capsys.readouterr().out
    assert BenchmarkDatabase(tmp_path / "b.duckdb").measurements() == MEASUREMENTS


def test_import_of_a_journal(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = BenchmarkDatabase(tmp_path / "b.duckdb")
    for new in (3, 0):
        run("import", str(journal), "--db-path", str(database.path))
        assert f"  performance_results: {new}\n" in capsys.readouterr().out
    assert [replace(each, family="") for each in database.measurements()] == [
        replace(each, family="") for each in MEASUREMENTS
    ]
    assert database.measurements()[0].family == "embedding"
    row = database.frame("test_runs").iloc[0]
    assert (row.command_line, row.git_commit, row.torch_version) == ("pytest --hf-performance", "abc123", "2.13.0")
    assert bool(row.success)
    assert list(database.frame("integration_test_results").test_name) == ["performance"]
    assert set(database.frame("hardware_platforms").memory_gb) == {8.0, 24.0}


def test_a_journal_of_a_run_that_wrote_itself_is_left_alone(journal: Path, tmp_path: Path) -> None:
    database = BenchmarkDatabase(tmp_path / "b.duckdb")
    database.write_run(record(command_line="pytest --hf-performance", started_at="2026-01-31T13:00:00+01:00"))
    assert not any(database.import_journal(journal).values())
    assert len(database.frame("test_runs")) == 1


def test_a_journal_of_a_killed_run_is_no_success(journal: Path, tmp_path: Path) -> None:
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:-1], '{"type": "ce']))
    database = BenchmarkDatabase(tmp_path / "b.duckdb")
    assert database.import_journal(journal) == {"test_runs": 1, "performance_results": 3}
    assert not bool(database.frame("test_runs").success[0])
    assert len(database.measurements()) == 3


def test_a_journal_without_its_first_line_is_refused(journal: Path, tmp_path: Path) -> None:
    journal.write_text("\n".join(journal.read_text().splitlines()[1:]))
    with pytest.raises(ConfigError, match=r"journal\.jsonl: the first line"):
        BenchmarkDatabase(tmp_path / "b.duckdb").import_journal(journal)


def test_import_of_an_older_database_asks_for_its_migration(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.duckdb"
    make(old)
    before = old.read_bytes()
    with pytest.raises(ConfigError, match=r"schema version 1(.|\n)*hfaccel db migrate --db-path .*old\.duckdb"):
        run("import", str(old))
    assert old.read_bytes() == before
    assert BenchmarkDatabase(path).measurements() == MEASUREMENTS


def test_migrate_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.duckdb"
    make(old)
    run("info", "--db-path", str(old))
    assert "schema version 1 (older: `hfaccel db migrate`)" in capsys.readouterr().out
    run("migrate", "--db-path", str(old))
    assert capsys.readouterr().out == f"{old}: schema version 2, from 1\n"
    run("migrate", "--db-path", str(old))
    assert capsys.readouterr().out == f"{old}: schema version 2, nothing to do\n"
