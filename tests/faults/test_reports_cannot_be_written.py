"""Nothing is lost without a word where reports, journal or database cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.reporting import read_journal
from tests.harness import HfRun, Project


def printed_cells(run: HfRun, file: Path) -> set[str]:
    """The cells in the lines of a journal that a run has printed."""
    _, _, text = run.output.partition("results that are in no file: a journal")
    file.write_text("".join(f"{line}\n" for line in text.splitlines() if line.startswith('{"type"')), encoding="utf-8")
    printed = read_journal(file)
    assert printed.problems == []
    assert printed.header["run"]["command"].startswith("pytest ")
    return {result.cell for result in printed.results}


@pytest.mark.parametrize("arguments", [("--hf-device", "fake:0", "-k", "placement"), ("-k", "resolves")], ids=str)
def test_a_file_where_the_directory_should_be(project: Project, arguments: tuple[str, ...]) -> None:
    """Told before the run, not after hours of it."""
    project.write("reports", "a file")
    run = project.run(*arguments)
    assert run.code == 4, run.output
    assert "--hf-reports reports: " in run.output
    assert "reports is a file.\nReports go to a directory: remove the file" in run.output
    assert "passed" not in run.output


def test_a_disk_that_is_full_from_the_start(project: Project) -> None:
    run = project.run("--hf-device", "fake:0", "-k", "placement", largest_file=1000)
    assert run.code == 4, run.output
    assert "the journal cannot be written: File too large\nFree space" in run.output
    assert not list((project.directory / "reports" / "runs").glob("0*"))


def test_a_disk_that_fills_up_during_the_run(project: Project, tmp_path: Path) -> None:
    """By a limit on the size of a file: the journal has some of the cells, and the reports do not fit."""
    devices = [f"fake:{number}" for number in range(8)]
    run = project.run("--hf-device", ",".join(devices), "-k", "placement", largest_file=14_000)
    assert run.code == 3, run.output
    assert run.counts["passed"] == len(devices)
    assert "bert_models.json: the report cannot be written: File too large" in run.output
    kept = read_journal(run.reports / "journal.jsonl")
    assert kept.problems == []
    in_journal = {result.cell for result in kept.results}
    printed = printed_cells(run, tmp_path / "printed.jsonl")
    assert in_journal
    assert printed
    assert not in_journal & printed
    assert in_journal | printed == {f"bert-base-uncased-{device.replace(':', '')}-fp32" for device in devices}
    assert f"the results of {len(in_journal)} of 8 cells are in " in run.output
    assert run.summary["passed"] is False  # what stands there is from the run's beginning


_SABOTEUR = """
import shutil
from pathlib import Path


def pytest_hfaccel_checks(checks):
    @checks.check("saboteur")
    def saboteur(context):
        from pytest_hfaccel.core.results import CheckOutcome

        directory = {directory}
        shutil.rmtree(directory)
        directory.write_text("a file")
        return CheckOutcome("saboteur")
"""


def test_the_directory_becomes_a_file_during_the_run(project: Project, tmp_path: Path) -> None:
    project.write("conftest.py", _SABOTEUR.format(directory='Path("reports")'))
    run = project.run("--hf-device", "fake:0", "-k", "saboteur")
    assert run.code == 3, run.output
    assert "not written: " in run.output
    assert printed_cells(run, tmp_path / "printed.jsonl") == {"bert-base-uncased-fake0-fp32"}


def test_a_folder_of_reports_becomes_a_file_during_the_run(project: Project) -> None:
    project.write("conftest.py", _SABOTEUR.format(directory='Path("reports/latest/by_class")'))
    run = project.run("--hf-device", "fake:0", "-k", "saboteur")
    assert run.code == 3, run.output
    assert "the results of 1 of 1 cells are in " in run.output
    assert "in no file" not in run.output
    assert len(read_journal(run.reports / "journal.jsonl").results) == 1


def test_a_database_that_is_damaged(project: Project) -> None:
    """The results stay; that what was asked for by name is not written is no success."""
    pytest.importorskip("duckdb")
    damaged = project.write("own.duckdb", "this is not a database" * 500)
    run = project.run("--hf-device", "fake:0", "-k", "placement", "--hf-database", "own.duckdb")
    assert run.code == 3, run.output
    assert "own.duckdb: this file is not a DuckDB database" in run.output
    assert damaged.read_text(encoding="utf-8") == "this is not a database" * 500
    assert run.summary["passed"] is True
    assert [str(record.status) for record in run.records.values()] == ["passed"]
