"""Processes share a machine's memory by its ledger: one is killed, two runs meet, the clock is set, nothing fits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pytest_hfaccel.core.errors import PoolExhausted
from pytest_hfaccel.pool.ledger import Ledger
from tests.harness import HfRun, Project

MB = 10**6
_MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
_CHECKS = """
from pytest_hfaccel.checks.base import passed


def pytest_hfaccel_checks(checks):
    @checks.check("runs")
    def runs(context):
        context.loaded.forward({})
        return passed()
"""
MODELS = ("bert-base-uncased", "distilbert-base-uncased", "roberta-base")
_NAMED = [argument for model in MODELS for argument in ("--hf-model", model)]
_RUN = (*_NAMED, "--hf-device", "fake:0", "-k", "placement or runs")


def take_and_hang(path: Path) -> subprocess.Popen[str]:
    """Start a process that takes 90 of 100 bytes, says so, and never gives them back."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom pytest_hfaccel.pool.ledger import Ledger\n"
        f"ledger = Ledger(Path({str(path)!r}))\nledger.set_limit('host', lambda: 100, is_share=False)\n"
        "claim = ledger.claim({'host': 90}, 'hangs')\nprint('taken', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_what_a_killed_process_had_is_free(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    process = take_and_hang(path)
    try:
        ledger = Ledger(path)
        ledger.set_limit("host", lambda: 100, is_share=False)
        os.kill(process.pid, signal.SIGKILL)
        began = time.monotonic()
        with ledger.claim({"host": 90}, "next"):  # it is not even waited for: its parent has not asked about it yet
            assert time.monotonic() - began < 5
            assert [entry["label"] for entry in ledger.usage()] == ["next"]
    finally:
        process.kill()
        process.communicate()


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.set_limit("host", lambda: 100, is_share=False)
    first = ledger.claim({"host": 60}, "first")
    now = time.time()
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: now - 86_400)
    pid = os.fork()
    if pid == 0:
        ledger.claim({"host": 60}, "second")
        os._exit(0)
    deadline = time.monotonic() + 20
    while not ledger.is_waited_for("host"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [entry["label"] for entry in ledger.usage()] == ["first", "second"]  # nobody is taken for dead
    first.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_can_never_fit_fails_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.set_limit("host", lambda: 100, is_share=False)
    with ledger.claim({"host": 90}, "one"), pytest.raises(PoolExhausted, match=r"large needs 101 B on host.*100 B"):
        ledger.claim({"host": 101}, "large")
    assert ledger.waits == 0


@pytest.fixture
def models(project: Project) -> Project:
    """Three models on a device that exists by name only."""
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_hf_models.py", _MODULE)
    project.write("conftest.py", _CHECKS)
    return project


def verdicts(run: HfRun) -> dict[str, dict[str, str]]:
    return {cell: {check.name: str(check.status) for check in result.checks} for cell, result in run.results.items()}


def script(nbytes: int, **others: object) -> str:
    return json.dumps({"roberta*": {"nbytes": 900 * MB}, "*": {"nbytes": nbytes, **others}})


def test_verdicts_are_those_of_a_serial_run_also_of_a_model_that_never_fits(models: Project) -> None:
    env: dict[str, Any] = {"HFACCEL_FAKE": script(300 * MB), "HFACCEL_POOL_MEMORY": "500MB"}
    serial = models.run(*_RUN, **env)
    serially = verdicts(serial)
    assert serially["roberta-base-fake0-fp32"]["placement"] == "out_of_memory"
    parallel = models.run("-n", "2", *_RUN, **env)
    assert verdicts(parallel) == serially
    assert parallel.code == serial.code == 1
    (placement, _) = parallel.results["roberta-base-fake0-fp32"].checks
    assert "roberta-base-fake0-fp32 needs 858.3 MiB on host" in str(placement.reason)
    assert "476.8 MiB" in str(placement.reason)


_FREE_BEFORE = """
import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    if "PYTEST_XDIST_WORKER" in os.environ:
        from pytest_hfaccel.plugin.state import session_of

        session_of(session.config).runner  # imports what a worker needs to run anything
        with open(f"ready-{os.getpid()}", "w") as file:
            file.write(str(__import__("psutil").Process().memory_info().rss))
"""


def most_memory(models: Project, **env: Any) -> tuple[int, int]:
    """Run two workers; return the most bytes that they had together beyond what they began with, and the exit code."""
    models.write("conftest.py", _CHECKS + _FREE_BEFORE)
    process = models.start("-n", "2", *_RUN, **env)
    most = 0
    while process.poll() is None:
        total = 0
        for mark in models.directory.glob("ready-*"):
            try:
                began = int(mark.read_text(encoding="utf-8"))
                total += max(0, psutil.Process(int(mark.name.partition("-")[2])).memory_info().rss - began)
            except (psutil.NoSuchProcess, ValueError):  # it has ended, or has not written the number yet
                continue
        most = max(most, total)
        time.sleep(0.01)
    for mark in models.directory.glob("ready-*"):
        mark.unlink()
    process.communicate()
    return most, process.returncode


def test_two_workers_never_have_more_than_the_budget(models: Project) -> None:
    """The resident memory of both processes is sampled; 40 MB are for what Python itself takes in a run."""
    fake = json.dumps({"*": {"nbytes": 200 * MB, "occupies": True, "load_seconds": 0.2, "forward_seconds": 0.3}})
    most, code = most_memory(models, HFACCEL_FAKE=fake, HFACCEL_POOL_MEMORY="300MB")
    assert code == 0
    assert 200 * MB <= most <= 300 * MB + 40 * MB
    most, code = most_memory(models, HFACCEL_FAKE=fake, HFACCEL_POOL_MEMORY="900MB")
    assert code == 0
    assert most >= 400 * MB  # with room for both they run side by side: the budget is what kept them apart


def test_a_worker_that_is_killed_with_a_lease_keeps_nobody_waiting(models: Project) -> None:
    fake = json.dumps({"bert-base*": {"nbytes": 300 * MB, "crash": "SIGKILL"}, "*": {"nbytes": 300 * MB}})
    run = models.run("-n", "2", *_RUN, HFACCEL_FAKE=fake, HFACCEL_POOL_MEMORY="500MB", timeout=100)
    assert run.code == 1, run.output
    assert run.results["bert-base-uncased-fake0-fp32"].status == "crashed"
    assert {str(run.results[f"{model}-fake0-fp32"].status) for model in MODELS[1:]} == {"passed"}


def test_two_runs_share_a_ledger(models: Project, tmp_path: Path) -> None:
    log, ledger = tmp_path / "fake.jsonl", tmp_path / "shared.sqlite"
    env: dict[str, Any] = {
        "HFACCEL_FAKE": json.dumps({"*": {"nbytes": 300 * MB, "forward_seconds": 0.2}}),
        "HFACCEL_FAKE_LOG": str(log),
        "HFACCEL_LEDGER": str(ledger),
        "HFACCEL_POOL_MEMORY": "500MB",
    }
    runs = [
        models.start(*_RUN, "--hf-reports", f"reports-{number}", *arguments, **env)
        for number, arguments in enumerate([(), ("-n", "1")])
    ]
    outputs = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    loaded = 0
    for line in log.read_text(encoding="utf-8").splitlines():
        loaded += {"load": 1, "close": -1}.get(json.loads(line)["event"], 0)
        assert loaded <= 1, "two models of 300 MB at once, with a budget of 500 MB"
    assert Ledger(ledger).usage() == []


def test_a_damaged_ledger_is_one_clear_message(models: Project) -> None:
    (models.directory / "ledger.sqlite").write_text("not a database")
    run = models.run("-n", "1", *_RUN, HFACCEL_LEDGER="ledger.sqlite")
    assert run.code == 4, run.output
    assert "ledger.sqlite: the ledger cannot be read or written: file is not a database." in run.output
    assert "Traceback" not in run.output
