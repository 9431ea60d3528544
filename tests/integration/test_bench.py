"""`hfaccel bench` from end to end, on tiny weights."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pytest_hfaccel.history.recording import measurements_in
from tests.harness import environment, run_python

pytestmark = pytest.mark.slow

COMMAND = ("-m", "pytest_hfaccel", "bench", "--weights", "tiny", "--threads", "1")
QUICK = ("--warmup", "1", "--iterations", "3")
MODELS = ("--models-set", "custom", "--custom-models", "bert-base-uncased", "google/vit-base-patch16-224")


def bench(where: Path, cache: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_python([*COMMAND, *QUICK, *arguments], where, environment(cache, **env))


def test_verified_measured_stored_and_drawn(tmp_path: Path, shared_cache: Path) -> None:
    for package in ("duckdb", "matplotlib", "seaborn"):
        pytest.importorskip(package)
    where = ("--hardware", "cpu", "--batch-sizes", "1", "2", "--seq-lengths", "8", "16")
    done = bench(tmp_path, shared_cache, *MODELS, *where)
    assert done.returncode == 0, done.stderr
    assert "[8/8] google/vit-base-patch16-224 [tiny] cpu fp32 batch 2: " in done.stdout
    data = json.loads((tmp_path / "benchmark_results" / "results.json").read_text())
    found = list(measurements_in(data))
    assert sorted((one.batch, one.length) for one in found) == [(1, 0), (1, 8), (1, 16), (2, 0), (2, 8), (2, 16)]
    assert all((one.latency.warm_up, one.latency.runs, one.threads) == (1, 3, 1) for one in found)
    assert [check["name"] for check in data["cells"][0]["checks"]][:3] == ["placement", "forward", "parity"]
    assert (tmp_path / "benchmark_results" / "plots" / "latency.png").stat().st_size > 1000

    from pytest_hfaccel.history import BenchmarkDatabase

    stored = BenchmarkDatabase(tmp_path / "hfaccel.duckdb", create=False).measurements()
    assert [one.latency for one in stored] == [one.latency for one in found]
    again = bench(tmp_path, shared_cache, "--visualize-from-db", "--output-dir", "drawn")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "drawn" / "plots" / "latency.png").exists()


def test_a_crash_costs_one_cell(tmp_path: Path, shared_cache: Path) -> None:
    models = ("--models-set", "custom", "--custom-models", "bert-base-uncased", "distilbert-base-uncased")
    options = ("--hardware", "fake:0", "--batch-sizes", "1", "--benchmark-only", "--no-db-store", "--no-plots")
    script = json.dumps({"bert-*": {"crash": "SIGSEGV"}})
    done = bench(tmp_path, shared_cache, *models, *options, HFACCEL_FAKE=script)
    assert done.returncode == 1, done.stderr
    assert "bert-base-uncased [tiny] fake:0 fp32 batch 1 length 128: crashed: " in done.stdout
    assert "was killed by SIGSEGV" in done.stdout
    data = json.loads((tmp_path / "benchmark_results" / "results.json").read_text())
    assert [cell["status"] for cell in data["cells"]] == ["crashed", "passed"]


@pytest.mark.parametrize("pool", [[], ["--no-resource-pool"]])
def test_in_one_process(tmp_path: Path, shared_cache: Path, pool: list[str]) -> None:
    options = ("--hardware", "cpu", "--batch-sizes", "1", "--no-db-store", "--no-plots", "--in-process", *pool)
    done = bench(tmp_path, shared_cache, *MODELS, *options)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "benchmark_results" / "results.json").read_text())
    found = list(measurements_in(data))
    assert len(found) == 2
    assert all("bytes of the weights" in one.memory_source for one in found)


def test_only_verifying(tmp_path: Path, shared_cache: Path) -> None:
    options = ("--hardware", "cpu", "--verify-only", "--no-db-store", "--no-plots")
    done = bench(tmp_path, shared_cache, *MODELS, *options)
    assert done.returncode == 0, done.stderr
    assert "[2/2] google/vit-base-patch16-224 [tiny] cpu fp32 verified: placement, forward, parity" in done.stdout
