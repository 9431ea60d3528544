"""`hfaccel merge`: what is joined, what is refused, and what the merged run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.results import CheckOutcome, Ended, Status
from pytest_hfaccel.reporting import read_journal
from pytest_hfaccel.reporting.runs import RunFolder, list_runs
from tests.unit.reporting.report_samples import HEADER, make_result
from tests.unit.reporting.test_reports_schema import validator


def write_run(
    reports: Path,
    cells: dict[str, str],
    *,
    shard: int = 0,
    shards: int = 2,
    planned: int | None = None,
    plan: str = "p1",
    end: bool = True,
    machine: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    facts = {"fingerprint": plan, "shard": shard, "shards": shards, "cells": planned or len(cells), "seconds": 9.0}
    header = {**HEADER, **({"plan": facts} if shard else {}), "machine": machine or HEADER["machine"]}
    folder = RunFolder(reports, header, **changes)
    results = []
    for model, status in cells.items():
        check = CheckOutcome("parity", Status(status), reason="it | differs" if status == "failed" else None)
        results.append(make_result(model, "bert", "cpu", "fp32", [check]))
        folder.journal.append(results[-1], {f"t.py::test_parity[{model}-cpu-fp32]": 1.5})
    if end:
        folder.finish(results, {"finished": HEADER["finished"]}, Ended.FINISHED, 20)
    else:
        folder.journal._file.close()
        folder._alive.release()
    return folder.directory


def merge(tmp_path: Path, *arguments: object) -> int:
    return main(["merge", *map(str, arguments), "--reports", str(tmp_path / "reports")])


def merged(tmp_path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((tmp_path / "reports" / "summary.json").read_text(encoding="utf-8"))
    return data


def two_shards(tmp_path: Path, second: str = "passed") -> Path:
    write_run(tmp_path / "shards" / "1", {"a": "passed", "b": "passed"}, shard=1)
    write_run(tmp_path / "shards" / "2", {"c": second}, shard=2)
    return tmp_path / "shards"


def test_shards_become_one_run_with_all_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    markdown, durations = tmp_path / "page.md", tmp_path / ".test_durations"
    code = merge(tmp_path, two_shards(tmp_path), "--markdown", markdown, "--durations", durations)
    assert code == 0, capsys.readouterr().err
    summary = merged(tmp_path)
    assert summary["passed"]
    assert summary["counts"]["cells"] == {"passed": 3}
    assert [one["plan"]["shard"] for one in summary["run"]["merged"]] == [1, 2]
    validator("summary").validate(summary)
    (run,) = list_runs(tmp_path / "reports")
    assert (run.status, run.cells) == ("passed", {"passed": 3})
    journal = read_journal(run.directory / "journal.jsonl")
    assert {result.cell for result in journal.results} == {"a-cpu-fp32", "b-cpu-fp32", "c-cpu-fp32"}
    assert all(result.from_run for result in journal.results)
    for line in (run.directory / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        validator("journal").validate(json.loads(line))
    assert (run.directory / "by_class" / "bert_models.json").exists()
    assert json.loads(durations.read_text())["t.py::test_parity[a-cpu-fp32]"] == 1.5
    assert f"Run {run.id}: passed" in markdown.read_text(encoding="utf-8")


def test_a_failure_makes_the_exit_code_one(tmp_path: Path) -> None:
    markdown = tmp_path / "page.md"
    assert merge(tmp_path, two_shards(tmp_path, second="failed"), "--markdown", markdown) == 1
    assert not merged(tmp_path)["passed"]
    page = markdown.read_text(encoding="utf-8")
    assert "**not passed**" in page
    assert r"| c-cpu-fp32 | failed | parity | it \| differs |" in page


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert merge(tmp_path, *arguments) == 3
    assert not (tmp_path / "reports").exists(), "nothing is written when it is refused"
    return capsys.readouterr().err


def test_a_missing_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = two_shards(tmp_path)
    said = refused(tmp_path, capsys, shards / "1")
    assert "shard 2 of 2 of plan p1: no run" in said
    assert "--partial" in said
    assert merge(tmp_path, shards / "1", "--partial", "--markdown", tmp_path / "page.md") == 1
    summary = merged(tmp_path)
    assert (summary["passed"], summary["ended"]) == (False, "interrupted")
    assert summary["run"]["partial"] == ["shard 2 of 2 of plan p1: no run"]
    validator("summary").validate(summary)
    assert "**incomplete**" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_a_doubled_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = two_shards(tmp_path)
    again = write_run(tmp_path / "shards" / "3", {"c": "passed"}, shard=2)
    said = refused(tmp_path, capsys, shards, "--partial")
    assert "shard 2: run" in said
    assert str(again) in said


def test_shards_of_other_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = two_shards(tmp_path)
    write_run(shards / "3", {"d": "passed"}, shard=1, plan="p2")
    assert "is of plan p2" in refused(tmp_path, capsys, shards)
    write_run(shards / "3", {"e": "passed"})
    assert "is of no plan" in refused(tmp_path, capsys, shards)


def test_a_shard_without_all_its_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "shards" / "1", {"a": "passed"}, shard=1, planned=3, end=False)
    write_run(tmp_path / "shards" / "2", {"c": "passed"}, shard=2)
    said = refused(tmp_path, capsys, tmp_path / "shards")
    assert "shard 1 of 2: 2 cells have no complete result" in said
    assert "killed" in said


def test_a_torn_last_line_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = two_shards(tmp_path)
    (journal,) = (shards / "2").glob("runs/*/journal.jsonl")
    journal.write_bytes(journal.read_bytes() + b'{"type": "sta')
    assert merge(tmp_path, shards) == 0
    assert "is torn" in capsys.readouterr().err


def test_a_damaged_line_is_a_result_that_may_be_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "one", {"a": "passed", "b": "passed"})
    journal = run / "journal.jsonl"
    journal.write_text(journal.read_text(encoding="utf-8").replace('"a-cpu', '"x-cpu'), encoding="utf-8")
    assert "a line is damaged" in refused(tmp_path, capsys, run)


def test_runs_that_disagree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "one", {"a": "passed", "b": "passed"})
    write_run(tmp_path / "other", {"a": "failed", "c": "passed"})
    both = (tmp_path / "one", tmp_path / "other")
    said = refused(tmp_path, capsys, *both)
    assert "a-cpu-fp32 (bert): parity passed and failed, in run" in said
    assert merge(tmp_path, *both, "--keep-worst") == 1
    summary = merged(tmp_path)
    assert summary["counts"]["cells"] == {"passed": 2, "failed": 1}
    assert len(summary["run"]["conflicts"]) == 1


def test_runs_that_agree_and_the_same_run_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", {"a": "passed"})
    write_run(tmp_path / "other", {"a": "passed", "b": "passed"})
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((one / "journal.jsonl").read_bytes())
    assert merge(tmp_path, tmp_path / "one", one, copy, tmp_path / "other") == 0
    assert merged(tmp_path)["counts"]["cells"] == {"passed": 2}
    said = capsys.readouterr().err
    assert "1 cells are in several runs" in said
    assert "the same journal as" in said


def test_a_resumed_run_stands_for_the_one_before_it(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one", {"a": "passed"}, end=False)
    kept = read_journal(first / "journal.jsonl").results
    write_run(tmp_path / "one", {"b": "passed"}, kept=kept, resumed=first.name)
    assert merge(tmp_path, tmp_path / "one") == 0
    assert merged(tmp_path)["counts"]["cells"] == {"passed": 2}


def test_a_run_that_did_not_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "one", {"a": "passed"}, end=False)
    assert "was killed, or still goes on" in refused(tmp_path, capsys, run)
    assert merge(tmp_path, run, "--partial") == 1


def test_nothing_to_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no journal of a run here" in refused(tmp_path, capsys, tmp_path)


def test_the_database_gets_each_run_with_its_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    one, other = ({"os": "Linux 6.1", "cpu": {"name": name, "cores": 2}} for name in ("one CPU", "another CPU"))
    first = write_run(tmp_path / "1", {"a": "passed", "b": "passed"}, machine=one)
    write_run(tmp_path / "2", {"c": "failed"}, machine=other)
    database = tmp_path / "all.duckdb"
    assert merge(tmp_path, first, tmp_path / "2", "--database", database) == 1
    assert capsys.readouterr().out.count(f"database: {database} (run ") == 2
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute("SELECT run_id, count(*) FROM hardware_compatibility GROUP BY run_id").fetchall()
        processors = connection.execute("SELECT DISTINCT device_name FROM hardware_platforms").fetchall()
    assert sorted(count for _, count in rows) == [1, 2]
    assert {name for (name,) in processors} >= {"one CPU", "another CPU"}

    assert merge(tmp_path, first, "--database", tmp_path) == 3
    assert f"--database {tmp_path}: a directory; name a file in it." in capsys.readouterr().err


def test_what_ended_because_of_the_machine_gives_way(tmp_path: Path) -> None:
    """Such a record is no verdict, and so in conflict with none."""
    write_run(tmp_path / "1", {"a": "infra_error"})
    write_run(tmp_path / "2", {"a": "passed"})
    assert merge(tmp_path, tmp_path / "1", tmp_path / "2") == 0
    assert merged(tmp_path)["counts"]["cells"] == {"passed": 1}
