"""`--hf-performance` in real runs: one test per point, pytest-benchmark's files, xdist, the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.history.recording import measurements_of
from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

CELL = "bert-base-uncased-cpu-fp32"
POINTS = ("--hf-performance-batch-sizes", "1,2", "--hf-performance-seq-lengths", "8,16")
MEASURE = ("--hf-performance", "--hf-device", "cpu")
ONLY = ("-k", "performance or parity")


def measured(run: HfRun) -> list[Measurement]:
    return measurements_of(run.results.values())


def places(found: list[Measurement]) -> list[tuple[int, int]]:
    return sorted((one.batch, one.length) for one in found)


def rows(path: Path, table: str) -> int:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(path), read_only=True) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - a test's table


@pytest.fixture(scope="module")
def points_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> HfRun:
    """Four points of a model are measured; pytest-benchmark writes a file, and the database is the default one."""
    pytest.importorskip("pytest_benchmark")
    project = Project(tmp_path_factory.mktemp("points"), shared_cache)
    written = ("--benchmark-json", "b.json", "--benchmark-group-by", "param:batch")
    return project.run(*MEASURE, *ONLY, *POINTS, *written, "-W", "error")


def test_one_test_per_point(points_run: HfRun) -> None:
    run = points_run
    assert run.code == 0, run.output
    assert run.counts["passed"] == 5
    for point in ("b1-s8", "b1-s16", "b2-s8", "b2-s16"):
        assert f"test_performance[{CELL}-{point}]" in run.output
    assert places(measured(run)) == [(1, 8), (1, 16), (2, 8), (2, 16)]
    checks = [check for check in run.results[CELL].checks if check.name == "performance"]
    assert all(check.measures["weights"] == "tiny" for check in checks)
    assert all(check.measures["median_ms"] > 0 for check in checks)


def test_the_database_holds_the_run_once(points_run: HfRun, shared_cache: Path) -> None:
    pytest.importorskip("duckdb")
    assert "(run 1: 4 measurements, 1 cells)" in points_run.output
    again = Project(points_run.reports.parent, shared_cache).run(
        *MEASURE, *ONLY, "-p", "no:benchmark", "--hf-reports", "again"
    )
    assert again.code == 0, again.output
    assert "(run 2: 1 measurements, 1 cells)" in again.output
    path = points_run.reports.parent / "hfaccel.duckdb"
    assert rows(path, "test_runs") == 2
    assert rows(path, "performance_results") == 5
    assert rows(path, "hardware_compatibility") == 2
    assert rows(path, "integration_test_results") == 5 + 2
    assert rows(path, "models") == rows(path, "hardware_platforms") == 1


def test_what_pytest_benchmark_writes(points_run: HfRun) -> None:
    run = points_run
    assert run.code == 0, run.output
    benchmarks: list[dict[str, Any]] = json.loads((run.reports.parent / "b.json").read_text())["benchmarks"]
    assert len(benchmarks) == 4
    by_place = {(one.batch, one.length): one for one in measured(run)}
    for one in benchmarks:
        params = one["params"]
        assert params["model"] == "bert-base-uncased"
        assert one["group"] == "bert-base-uncased [tiny]"
        assert one["name"].startswith("test_performance[bert-base-uncased[tiny]-cpu-fp32-b")
        assert (params["device"], params["dtype"], params["weights"]) == ("cpu", "fp32", "tiny")
        ours = by_place[params["batch"], params["length"]]
        assert one["stats"]["rounds"] == ours.latency.runs == len(one["stats"]["data"])
        assert 1e3 * one["stats"]["median"] == pytest.approx(ours.latency.median_ms)
        assert one["extra_info"]["memory_bytes"] == ours.memory_bytes
    assert "benchmark 'batch=2': 2 tests" in run.output


@pytest.mark.nightly
def test_runs_are_compared_by_the_ids_of_tests(project: Project) -> None:
    pytest.importorskip("pytest_benchmark")
    one = (*MEASURE, *ONLY, "--hf-performance-batch-sizes", "2", "--hf-database", "none")
    assert project.run(*one, "--benchmark-save", "before").code == 0
    run = project.run(*one, "--benchmark-compare", "--benchmark-min-rounds", "30")
    assert run.code == 0, run.output
    assert "test_performance[bert-base-uncased[tiny]-cpu-fp32-b2] (NOW)" in run.output
    assert "(0001_before)" in run.output
    assert measured(run)[0].latency.runs >= 30
    assert not (project.directory / "hfaccel.duckdb").exists()


@pytest.mark.nightly
def test_benchmarks_switched_off(project: Project) -> None:
    """The code runs once, nothing is timed: what `--benchmark-disable` says."""
    pytest.importorskip("pytest_benchmark")
    run = project.run(*MEASURE, *ONLY, "--benchmark-disable", "-W", "error", "--hf-database", "none")
    assert run.code == 0, run.output
    assert run.counts["passed"] == 2
    assert measured(run) == []
    (check,) = [check for check in run.results[CELL].checks if check.name == "performance"]
    assert check.measures["timed"] is False


@pytest.mark.nightly
def test_only_and_skip(project: Project) -> None:
    pytest.importorskip("pytest_benchmark")
    only = project.run(*MEASURE, *ONLY, "--benchmark-only", "--hf-database", "none")
    assert (only.counts["passed"], only.counts["skipped"]) == (1, 1)
    skip = project.run(*MEASURE, *ONLY, "--benchmark-skip", "--hf-database", "none")
    assert (skip.counts["passed"], skip.counts["skipped"]) == (1, 1)
    assert skip.statuses(CELL) == {"parity": "passed", "performance": "skipped"}


def test_a_failure_leaves_no_benchmark(project: Project) -> None:
    pytest.importorskip("pytest_benchmark")
    project.write(
        "test_hf_bert.py",
        """
from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_performance(self, hf_check, hf_model, monkeypatch, hf_measuring_point):
        def fail(inputs):
            raise RuntimeError("no")

        monkeypatch.setattr(hf_model, "forward", fail)
        hf_check("performance")
""",
    )
    run = project.run(*MEASURE, *ONLY, "--benchmark-json", "b.json")
    assert run.code == 1, run.output
    assert run.statuses(CELL) == {"parity": "passed", "performance": "error"}
    assert json.loads((project.directory / "b.json").read_text())["benchmarks"] == []


def test_two_workers_measure_and_the_controller_writes(project: Project) -> None:
    pytest.importorskip("duckdb")
    models = ("--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased")
    run = project.run("-n", "2", *MEASURE, *ONLY, *models, "--hf-database", "own.duckdb")
    assert run.code == 0, run.output
    assert run.counts["passed"] == 4
    assert [one.details["processes"] for one in measured(run)] == [2] * 2
    assert rows(project.directory / "own.duckdb", "performance_results") == 2
    assert rows(project.directory / "own.duckdb", "test_runs") == 1


def test_a_damaged_database_costs_no_result(project: Project) -> None:
    pytest.importorskip("duckdb")
    damaged = project.write("hfaccel.duckdb", "this is not a database" * 500)
    before = damaged.read_bytes()
    run = project.run(*MEASURE, *ONLY)
    assert run.code == 0, run.output
    assert "not written: " in run.output
    assert "hfaccel.duckdb: this file is not a DuckDB database" in run.output
    assert len(measured(run)) == 1
    assert damaged.read_bytes() == before


def test_a_database_without_duckdb_is_refused_before_the_run(project: Project) -> None:
    project.write("without_duckdb.py", "import sys; sys.modules['duckdb'] = None\n")
    without = (*MEASURE, "-p", "without_duckdb")
    run = project.run(*without, "--hf-database", "x.duckdb")
    assert run.code == 4, run.output
    assert "--hf-database (BENCHMARK_DB_PATH) x.duckdb: the package duckdb is not installed" in run.output
    quiet = project.run(*without, *ONLY)
    assert quiet.code == 0, quiet.output
    assert "the benchmark database needs the package duckdb" in quiet.output
    assert len(measured(quiet)) == 1
