"""`--hf-isolate`: a crash, a hang or a lost device costs one cell, without pytest-xdist; nothing else changes."""

from __future__ import annotations

import json
import signal
import time
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_hfaccel.reporting import read_journal
from tests.faults.test_the_run_is_told_to_end import assert_ended_in_order, interrupt, is_alive
from tests.harness import HfRun, Project

MODELS = ("bert-base-uncased", "distilbert-base-uncased")
MODULE = """
from pytest_hfaccel import ModelClassTests


class TestModels(ModelClassTests):
    architectures = ("*",)
"""
CHECKS = """
import logging
import os
import signal
import sys
import time

from pytest_hfaccel.checks.base import passed


def pytest_hfaccel_checks(checks):
    for name in ("before", "runs", "after"):
        def run(context, name=name):
            print(f"{context.cell.model.name} {name}")
            os.write(2, f"a library says {name}\\n".encode())
            logging.getLogger("mine").warning("logged by %s", name)
            if name == "runs":
                if os.environ.get("STOPS") == context.cell.model.name:
                    os.kill(os.getpid(), signal.SIGSTOP)
                context.loaded.forward({})
            return passed()

        checks.check(name)(run)
"""
CELLS = [f"{model}-fake{number}-fp32" for model in MODELS for number in (0, 1)]


@pytest.fixture
def models(project: Project) -> Project:
    """Two models on two devices that exist by name only, each cell with three checks; a test that has no model."""
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_hf_models.py", MODULE)
    project.write("test_other.py", "def test_other_runs(tmp_path):\n    assert tmp_path.exists()\n")
    project.write("conftest.py", CHECKS)
    return project


def run_models(project: Project, *arguments: str, fake: dict[str, Any] | None = None, **options: Any) -> HfRun:
    named = [argument for model in MODELS for argument in ("--hf-model", model)]
    selected = ("--hf-device", "fake:0,fake:1", "-k", "before or runs or after", "--junitxml=junit.xml")
    return project.run("--hf-isolate", *named, *selected, *arguments, HFACCEL_FAKE=json.dumps(fake or {}), **options)


def processes_of(project: Project) -> dict[str, set[int]]:
    lines = (project.directory / "fake.log").read_text(encoding="utf-8").splitlines()
    found: dict[str, set[int]] = {}
    for line in map(json.loads, lines):
        found.setdefault(line["cell"], set()).add(line["process"])
    return found


def test_nothing_happens(models: Project) -> None:
    """Verdicts, counts, JUnit and records are those of a run in one process; each model has a process."""
    together = models.run(
        *(argument for model in MODELS for argument in ("--hf-model", model)),
        *("--hf-device", "fake:0,fake:1", "-k", "before or runs or after", "--junitxml=together.xml"),
    )
    run = run_models(models, HFACCEL_FAKE_LOG=str(models.directory / "fake.log"))
    assert run.code == together.code == 0, run.output
    assert run.counts == together.counts
    assert {cell: run.statuses(cell) for cell in CELLS} == {cell: together.statuses(cell) for cell in CELLS}
    assert _cases(models, "junit.xml") == _cases(models, "together.xml")
    assert "starts anew" not in run.output  # forks
    processes = processes_of(models)
    assert [len(processes[cell]) for cell in CELLS] == [1, 1, 1, 1]
    assert processes[CELLS[0]] == processes[CELLS[1]] != processes[CELLS[2]] == processes[CELLS[3]]
    assert len(run.summary["run"]["pool"]) == 2


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_it_is_killed(models: Project, name: str) -> None:
    run = run_models(models, fake={"bert-*": {"crash": name}})
    assert run.code == 1, run.output
    for cell in CELLS[:2]:
        assert run.statuses(cell) == {"before": "passed", "runs": "crashed", "after": "skipped"}
        (crashed,) = [check for check in run.results[cell].checks if check.status == "crashed"]
        assert (str(crashed.stage), crashed.measures["signal"]) == ("run", name)
        lines = crashed.measures["last_lines"]
        assert {"a library says runs", "bert-base-uncased runs", "WARNING mine: logged by runs"} <= set(lines)
        assert any("backend.py" in line and "forward" in line for line in lines) == (name != "SIGKILL")
    assert {str(run.results[cell].status) for cell in CELLS[2:]} == {"passed"}
    assert run.counts["passed"] == 9
    journal = read_journal(run.reports / "journal.jsonl")
    assert sorted(result.cell for result in journal.results) == sorted(CELLS)


def test_a_check_of_its_class_is_killed(models: Project) -> None:
    """Which says nothing about any device."""
    models.write(
        "conftest.py",
        CHECKS.replace("checks.check(name)(run)", "checks.check(name, level='class')(run)").replace(
            "context.loaded.forward({})", "os.abort() if context.cell.model.name[0] == 'b' else None"
        ),
    )
    run = run_models(models)
    assert run.code == 1, run.output
    assert run.statuses(MODELS[0]) == {"before": "passed", "runs": "crashed", "after": "skipped"}
    assert run.statuses(MODELS[1]) == {"before": "passed", "runs": "passed", "after": "passed"}


def test_it_hangs(models: Project) -> None:
    run = run_models(models, "--hf-timeout", "2", fake={"bert-*": {"forward_seconds": 60}})
    assert_late(run)
    assert "in forward" in str(run.results[CELLS[0]].reason)


@pytest.mark.nightly
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["isolated", "xdist"])
def test_it_hangs_and_cannot_end_itself(models: Project, workers: tuple[str, ...]) -> None:
    assert_late(run_models(models, "--hf-timeout", "2", *workers, STOPS=MODELS[0]))


def assert_late(run: HfRun) -> None:
    assert run.code == 1, run.output
    (late,) = [check for check in run.results[CELLS[0]].checks if check.status == "timeout"]
    assert late.name == "runs"
    assert "took more than 2 s at stage run" in str(late.reason)
    assert {str(run.results[cell].status) for cell in CELLS[2:]} == {"passed"}


def test_a_device_is_lost(models: Project) -> None:
    """After an error that CUDA does not recover from, the other cells of the model run in another process."""
    text = "CUDA error: an illegal memory access was encountered"
    log = str(models.directory / "fake.log")
    run = run_models(models, fake={"bert-*": {"error": text}}, HFACCEL_FAKE_LOG=log)
    assert run.code == 1, run.output
    assert run.counts["failed"] == 2
    for cell in CELLS[:2]:
        assert run.statuses(cell) == {"before": "passed", "runs": "error", "after": "skipped"}
    assert {str(run.results[cell].status) for cell in CELLS[2:]} == {"passed"}
    processes = processes_of(models)
    assert not processes[CELLS[0]] & processes[CELLS[1]]


@pytest.mark.nightly
def test_a_worker_loses_its_device(models: Project) -> None:
    """By a fault of the machine, which is no fault of the model."""
    ecc = run_models(models, "-n", "2", fake={"bert-*": {"error": "CUDA error: uncorrectable ECC error encountered"}})
    assert ecc.code == 1, ecc.output
    assert ecc.statuses(CELLS[0]) == {"before": "passed", "runs": "infra_error", "after": "skipped"}
    assert ecc.statuses(CELLS[1]) == {"before": "passed", "runs": "infra_error", "after": "skipped"}
    assert "crashed while running" not in ecc.output
    assert {str(ecc.results[cell].status) for cell in CELLS[2:]} == {"passed"}


def test_a_device_is_lost_without_isolation(models: Project) -> None:
    """What comes after on such a device is not run, which says nothing of the models; a resumed run runs it."""
    arguments = ("--hf-model", MODELS[0], "--hf-model", MODELS[1], "--hf-device", "fake:0", "-k", "runs or after")
    fake = json.dumps({"bert-*": {"error": "CUDA error: device-side assert triggered"}})
    run = models.run(*arguments, HFACCEL_FAKE=fake)
    assert run.code == 1, run.output
    assert run.statuses(CELLS[0]) == {"runs": "error", "after": "skipped"}
    assert run.statuses(CELLS[2]) == {"runs": "infra_error", "after": "skipped"}
    assert "--hf-isolate" in str(run.results[CELLS[2]].reason)
    resumed = models.run(*arguments, "--hf-resume")
    assert resumed.code == 1, resumed.output  # the error is kept
    assert resumed.statuses(CELLS[2]) == {"runs": "passed", "after": "passed"}


@pytest.mark.nightly
def test_where_a_fork_could_hang(models: Project) -> None:
    """A thread of the user's own: each model's process starts anew, with the same results."""
    thread = "\nimport threading\n\nthreading.Thread(target=time.sleep, args=(60,), daemon=True, name='mine').start()\n"
    models.write("conftest.py", CHECKS + thread)
    run = run_models(models, "-n0", new_process=True, fake={"bert-*": {"crash": "SIGSEGV"}})
    assert run.code == 1, run.output
    assert "each model's process starts anew, not as a fork: this process has other threads (mine)" in run.output
    assert [str(run.results[cell].status) for cell in CELLS] == ["crashed", "crashed", "passed", "passed"]
    (crashed,) = [check for check in run.results[CELLS[0]].checks if check.status == "crashed"]
    assert "a library says runs" in crashed.measures["last_lines"]
    assert run.counts["passed"] == 9


def test_enough_failures(models: Project) -> None:
    run = run_models(models, "-x", fake={"bert-*": {"crash": "SIGSEGV"}})
    assert run.code == 1, run.output
    assert "stopping after 1 failures" in run.output
    assert run.summary["ended"] == "interrupted"
    assert CELLS[2] not in run.results


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_run_is_told_to_end(project: Project, number: signal.Signals) -> None:
    run, sleepers = interrupt(project, number, "--hf-isolate")
    assert_ended_in_order(run, sleepers)


def test_the_run_is_killed(project: Project) -> None:
    """The process of the model ends, too, and nobody says that the model has killed the run."""
    run, sleepers = interrupt(project, signal.SIGKILL, "--hf-isolate")
    assert run.code == -signal.SIGKILL
    assert len(sleepers) == 1
    deadline = time.monotonic() + 20
    while is_alive(sleepers[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(sleepers[0])
    following = project.run("--hf-device", "fake:0", "-k", "placement", "--hf-resume", "--hf-isolate")
    assert following.code == 0, following.output
    assert {str(record.status) for record in following.records.values()} == {"passed"}


def test_pytest_benchmark_has_what_the_processes_measure(project: Project) -> None:
    pytest.importorskip("pytest_benchmark")
    measure = ("--hf-performance", "--hf-database", "none", "--hf-device", "cpu", "-k", "performance or parity")
    run = project.run("--hf-isolate", *measure, "--benchmark-json", "numbers.json")
    assert run.code == 0, run.output
    (entry,) = json.loads((project.directory / "numbers.json").read_text(encoding="utf-8"))["benchmarks"]
    assert entry["params"]["model"] == "bert-base-uncased"
    assert entry["stats"]["rounds"] >= 5
    assert entry["extra_info"]["device_name"]


def test_a_debugger_is_asked_for(project: Project) -> None:
    run = project.run("--hf-isolate", "--pdb", "--hf-device", "fake:0", "-k", "placement")
    assert run.code == 4, run.output
    assert "--hf-isolate runs tests in other processes, where --pdb and --trace cannot stop" in run.output


def _cases(project: Project, name: str) -> dict[str, list[str]]:
    cases = ElementTree.parse(project.directory / name).getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    return {str(case.get("name")): [child.tag for child in case if child.tag != "system-out"] for case in cases}
