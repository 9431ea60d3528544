"""Runs that write to one directory, one after the other or at once, leave each other's reports alone."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from pytest_hfaccel.reporting.runs import list_runs
from tests.harness import Project, environment, run_python

_PLACEMENT = ("-k", "placement")
_WAITS = """
import os, time
from pathlib import Path


def pytest_hfaccel_checks(checks):
    @checks.check("waits")
    def waits(context):
        from pytest_hfaccel.core.results import CheckOutcome

        Path("waiting").touch()
        while "WAITS" in os.environ and not Path("go").exists():
            time.sleep(0.05)
        return CheckOutcome("waits")
"""


def cells_of(run: Path) -> set[str]:
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("by_class/*.json")]
    return {cell["cell"] for report in reports for cell in report["cells"]}


def hfaccel_runs(project: Project, *arguments: str) -> str:
    command = ["-m", "pytest_hfaccel", "runs", *arguments]
    done = run_python(command, project.directory, environment(project.cache))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_after_the_other(project: Project) -> None:
    """Formerly the second destroyed the first one's reports."""
    project.write("test_hf_gpt.py", (project.directory / "test_hf_bert.py").read_text().replace("Bert", "GPT2"))
    models = ("--hf-model", "bert-base-uncased", "--hf-model", "gpt2")
    project.run(*models, "--hf-device", "fake:0", *_PLACEMENT)
    second = project.run(
        "--hf-model", "gpt2", "--hf-device", "fake:1", *_PLACEMENT, HFACCEL_FAKE='{"*": {"fail_stage": "load"}}'
    )
    one, two = list_runs(second.reports)
    assert cells_of(one.directory) == {"bert-base-uncased-fake0-fp32", "gpt2-fake0-fp32"}
    assert cells_of(two.directory) == cells_of(second.reports) == {"gpt2-fake1-fp32"}
    assert second.summary["run"]["id"] == two.id
    assert (one.status, two.status) == ("passed", "failed")

    text = hfaccel_runs(project)
    assert [line.partition(" ")[0] for line in text.splitlines()] == [one.id, two.id]
    assert "  failed  cells: 1 error  pytest " in text
    listed: list[dict[str, Any]] = json.loads(hfaccel_runs(project, "--json"))
    assert [run["cells"] for run in listed] == [{"passed": 2}, {"error": 1}]

    third = project.run("--hf-model", "gpt2", "--hf-device", "fake:0", *_PLACEMENT, "--hf-reports-keep", "2")
    assert [run.id[:5] for run in list_runs(third.reports)] == ["0002-", "0003-"]
    assert hfaccel_runs(project, "--reports", "nowhere") == "nowhere: no runs\n"


def test_at_once_and_one_of_them_stopped_for_a_while(project: Project) -> None:
    project.write("conftest.py", _WAITS)
    first = project.start("--hf-device", "fake:0", "-k", "waits", WAITS="1")
    deadline = time.monotonic() + 120
    while not (project.directory / "waiting").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    try:
        # Its folder would be the oldest, and is not removed: it goes on.
        second = project.run("--hf-device", "fake:1", "-k", "waits", "--hf-reports-keep", "1")
        assert second.code == 0, second.output
        assert "ended early" not in second.output
        assert [run.status for run in list_runs(second.reports)] == ["running", "passed"]
        refused = project.run("--hf-device", "fake:0", "-k", "waits", "--hf-resume=1")
        assert refused.code == 4, refused.output
        assert "is still in progress" in refused.output
    finally:
        first.send_signal(signal.SIGCONT)
        (project.directory / "go").touch()
        output = first.communicate(timeout=60)[0]
    assert first.returncode == 0, output
    one, two = list_runs(second.reports)
    assert (one.status, two.status) == ("passed", "passed")
    assert cells_of(one.directory) == {"bert-base-uncased-fake0-fp32"}
    assert cells_of(two.directory) == cells_of(second.reports) == {"bert-base-uncased-fake1-fp32"}


def test_where_there_are_no_symbolic_links(project: Project) -> None:
    """The top level has copies; the next run takes their place, and the files of a run before it go."""
    project.write(
        "conftest.py", "import os\n\n\ndef no(*_, **__):\n    raise OSError(1, 'not here')\n\n\nos.symlink = no\n"
    )
    project.write("test_hf_gpt.py", (project.directory / "test_hf_bert.py").read_text().replace("Bert", "GPT2"))
    first = project.run("--hf-model", "bert-base-uncased", "--hf-device", "fake:0", *_PLACEMENT)
    assert first.code == 0, first.output
    assert not any(path.is_symlink() for path in first.reports.iterdir())
    assert cells_of(first.reports) == {"bert-base-uncased-fake0-fp32"}
    second = project.run("--hf-model", "gpt2", "--hf-device", "fake:1", *_PLACEMENT)
    assert cells_of(second.reports) == {"gpt2-fake1-fp32"}
    assert second.summary["ended"] == "finished"
    assert [run.id[:5] for run in list_runs(second.reports)] == ["0001-", "0002-"]

    (project.directory / "conftest.py").unlink()
    third = project.run("--hf-model", "bert-base-uncased", "--hf-device", "fake:1", *_PLACEMENT)
    assert cells_of(third.reports) == {"bert-base-uncased-fake1-fp32"}
    assert third.reports.joinpath("by_class").is_symlink()


def test_reports_that_lay_there_before_runs_had_folders(project: Project) -> None:
    project.write("reports/by_class/bert_models.json", "{}")
    project.write("reports/by_class/notes.txt", "mine")
    project.write("reports/summary.json", "{}")
    project.write("reports/notes.txt", "mine, too")
    run = project.run("--hf-device", "fake:0", *_PLACEMENT)
    assert run.code == 0, run.output
    (before,) = (run.reports / "runs").glob("0000-before-*")
    assert sorted(path.name for path in before.rglob("*")) == [
        "bert_models.json",
        "by_class",
        "notes.txt",
        "summary.json",
    ]
    assert (run.reports / "notes.txt").is_file()
    assert cells_of(run.reports) == {"bert-base-uncased-fake0-fp32"}
