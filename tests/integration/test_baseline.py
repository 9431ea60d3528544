"""`--hf-baseline`: a run that is compared with an earlier one at its end."""

from __future__ import annotations

import json

from tests.harness import Project
from tests.unit.reporting.test_reports_schema import validator

CHECKS = ("--hf-device", "fake:0", "-k", "placement or own")

MODULE = """
from pathlib import Path

from pytest_hfaccel import ModelClassTests


class TestBert(ModelClassTests):
    architectures = ("Bert*",)
    default_model = "bert-base-uncased"

    def test_own(self, hf_cell):
        assert not Path("broken").exists(), "it is broken"
"""


def test_what_changed_is_shown_and_recorded_and_fails_nothing(project: Project) -> None:
    project.write("test_hf_bert.py", MODULE)
    first = project.run(*CHECKS)
    assert first.code == 0, first.output
    assert "comparison" not in first.summary
    same = project.run(*CHECKS, "--hf-baseline", "latest")
    assert same.code == 0, same.output
    assert "Nothing is worse: 1 cells and 0 measurements compared" in same.output
    (earlier,) = [path.name for path in (same.reports / "runs").glob("0001-*")]
    assert same.summary["comparison"] == {
        "baseline": earlier,
        "passed": True,
        "fail_on": [],
        "worse": {},
        "file": "comparison.json",
    }
    validator("summary").validate(same.summary)

    fewer = project.run("--hf-device", "fake:0", "-k", "placement", "--hf-baseline", "1")
    assert fewer.code == 0, fewer.output
    assert "no longer tested (1)\n  bert-base-uncased-fake0-fp32 own (bert): passed -> not run" in fewer.output
    assert fewer.summary["comparison"]["worse"] == {"missing": 1}
    record = json.loads((fewer.reports / "latest" / "comparison.json").read_text(encoding="utf-8"))
    validator("comparison").validate(record)
    assert [one["change"] for one in record["verdicts"]] == ["no longer tested"]
    assert record["baseline"]["source"] == "1"


def test_what_is_worse_fails_the_run_where_the_user_says_so(project: Project) -> None:
    project.write("test_hf_bert.py", MODULE)
    project.run(*CHECKS)
    asked = ("--hf-device", "fake:0", "-k", "placement", "--hf-baseline", "1")
    assert project.run(*asked, "--hf-baseline-fail-on", "verdicts,speed").code == 0
    missing = project.run(*asked, "--hf-baseline-fail-on", "missing")
    assert missing.code == 1, missing.output
    assert "Worse: 1 check or cell no longer tested" in missing.output
    assert missing.summary["comparison"]["passed"] is False
    assert missing.summary["passed"] is True  # of the run itself


def test_a_newly_failing_check_leads_the_comparison(project: Project) -> None:
    project.write("test_hf_bert.py", MODULE)
    project.run(*CHECKS)
    project.write("broken", "")
    run = project.run(*CHECKS, "--hf-baseline", "latest")
    assert run.code == 1
    assert "newly failing (1)\n  bert-base-uncased-fake0-fp32 own (bert): passed -> failed (run" in run.output
    assert "Worse: 1 check newly failing" in run.output


def test_a_baseline_that_is_not_there_stops_the_run_before_it_begins(project: Project) -> None:
    project.write("test_hf_bert.py", MODULE)
    run = project.run(*CHECKS, "--hf-baseline", "latest")
    assert run.code == 4, run.output
    assert "--hf-baseline=latest: there is no run in" in run.output
    assert not list((run.reports / "runs").glob("0*"))
    alone = project.run(*CHECKS, "--hf-baseline-fail-on", "speed")
    assert alone.code == 4, alone.output
    assert "--hf-baseline-fail-on is about a comparison" in alone.output
    assert "Add --hf-baseline RUN" in alone.output
