"""A run that is cut short keeps what it finished."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pytest_hfaccel.reporting import read_journal
from tests.harness import Project

pytestmark = pytest.mark.slow

SLOW_AFTER_THE_FIRST_CELL = """
import time
from pathlib import Path


def pytest_hfaccel_checks(checks):
    @checks.check("slow", applies=lambda cell: cell.model.name == "distilbert-base-uncased")
    def slow(context):
        Path("sleeping").touch()
        time.sleep(120)
"""

ARGUMENTS = ("--hf-model", "bert-base-uncased", "--hf-model", "distilbert-base-uncased", "--hf-device", "cpu")
FINISHED = "bert-base-uncased-cpu-fp32"


def start_until_first_cell(project: Project) -> tuple[subprocess.Popen[str], Path]:
    project.write("conftest.py", SLOW_AFTER_THE_FIRST_CELL)
    process = project.start(*ARGUMENTS)
    journal = project.directory / "reports" / "journal.jsonl"
    deadline = time.monotonic() + 120
    # Not before it sleeps: an interrupt within pytest's own code can meet a line without a number, which pytest 9.2 on
    # CPython 3.11 fails to print.
    sleeping = project.directory / "sleeping"
    while time.monotonic() < deadline and process.poll() is None:
        if sleeping.exists() and FINISHED in {result.cell for result in read_journal(journal).results}:
            return process, journal
        time.sleep(0.1)
    output = process.communicate(timeout=30)[0]
    raise AssertionError(f"no cell finished\n{output}")


def test_kill_leaves_the_finished_cells_in_the_journal(project: Project) -> None:
    process, journal = start_until_first_cell(project)
    process.kill()
    process.communicate(timeout=30)
    assert FINISHED in {result.cell for result in read_journal(journal).results}


def test_ctrl_c_writes_the_reports(project: Project) -> None:
    process, journal = start_until_first_cell(project)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 2, output
    results = {result.cell: result for result in read_journal(journal).results}
    assert results[FINISHED].status == "passed"
    summary = json.loads((journal.parent / "summary.json").read_text(encoding="utf-8"))
    assert (summary["ended"], summary["passed"]) == ("interrupted", False)


def test_stopping_at_the_first_failure_marks_the_cell_incomplete(project: Project) -> None:
    project.write(
        "conftest.py",
        """
from pytest_hfaccel.checks.base import failed


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "test_broken" not in item.name)


def pytest_hfaccel_checks(checks):
    @checks.check("broken")
    def broken(context):
        return failed("it is broken")
""",
    )
    run = project.run("-x", "--hf-device", "cpu")
    assert run.code == 1, run.output
    result = run.results["bert-base-uncased-cpu-fp32"]
    assert result.incomplete
    assert result.status == "failed"


def test_a_full_disk_is_a_clear_error(project: Project, tmp_path: Path) -> None:
    run = project.run("--hf-device", "cpu", "-k", "forward", "--hf-cache", str(tmp_path / "full"), largest_file=300_000)
    assert run.code == 1, run.output
    (result,) = run.results.values()
    assert result.status == "error"
    assert str(result.reason).startswith("full/checkpoints: ")  # below the root
    assert "--hf-cache" in str(result.reason)
    assert not [path for path in (tmp_path / "full" / "checkpoints").iterdir() if path.is_dir()]
