"""`hfaccel compare`: verdicts, numbers and sizes that changed between two runs, or from the database to a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.cli import main
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.history import BenchmarkDatabase
from pytest_hfaccel.reporting import Journal
from pytest_hfaccel.reporting.run_facts import SCHEMAS, load_schema
from tests.unit.history.store_samples import LATENCY, MEASURED, record

MACHINE = {"cpu": {"name": "AMD EPYC", "cores": 2}}
LIMITS = {"rel_l2": 1e-5, "cosine": 0.9999}


def parity(distance: float, status: Status = Status.PASSED, **changes: Any) -> CheckOutcome:
    leaves = {"logits": {"rel_l2": distance, "cosine": 1.0}}
    return CheckOutcome(
        "parity",
        status,
        measures={"rel_l2": distance, "worst": "logits", "leaves": leaves, "tolerance": LIMITS},
        **changes,
    )


def speed(*milliseconds: float, model: str = "bert", memory: int = 2**30, **changes: Any) -> CheckOutcome:
    """A measurement with these repetitions."""
    latency = replace(LATENCY, runs=len(milliseconds), min_ms=min(milliseconds))
    details = {"block_minima_ms": list(milliseconds)}
    one = replace(
        MEASURED,
        model=model,
        weights="tiny",
        batch=4,
        length=32,
        latency=latency,
        memory_bytes=memory,
        details=details,
        **changes,
    )
    return CheckOutcome("performance", measures={"batch": 4, "length": 32, "measurements": [one.to_json()]})


def cell(model: str, *checks: CheckOutcome, **changes: Any) -> CellResult:
    return CellResult(
        cell=f"{model}-cpu-fp32",
        model=model,
        architecture="BertForMaskedLM",
        module="bert",
        task="fill-mask",
        device="cpu",
        dtype="fp32",
        weights="tiny",
        checks=list(checks),
        **changes,
    )


def write_run(reports: Path, number: int, cells: Sequence[CellResult], **header: Any) -> str:
    """Write the journal of a run; return its id."""
    name = f"{number:04d}-2026013{number}T120000Z-abcd"
    facts = {"id": name, "started": f"2026-01-3{number}T12:00:00+00:00", "machine": MACHINE, "commit": "0123456789" * 4}
    journal = Journal(reports / "runs" / name / "journal.jsonl", {**facts, "versions": {"torch": "2.13.0"}, **header})
    for one in cells:
        journal.append(one)
    journal.close()
    return name


def compared(capsys: pytest.CaptureFixture[str], reports: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["compare", *arguments, "--reports", str(reports), "--format", "json"])
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, data


def two_runs(reports: Path, before: Sequence[CellResult], after: Sequence[CellResult]) -> None:
    write_run(reports, 1, before)
    write_run(reports, 2, after)


def test_two_equal_runs_have_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell("bert", parity(1e-7), speed(4.0, 4.1, 4.2))]
    two_runs(tmp_path, cells, cells)
    code, data = compared(capsys, tmp_path, "1", "2")
    assert (code, data["passed"], data["worse"], data["surroundings"]) == (0, True, {}, [])
    assert (data["verdicts"], data["drift"], data["memory"]) == ([], [], [])
    assert [(one["change"], one["verdict"]) for one in data["speed"]["measurements"]] == [(0.0, "same")]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (Status.PASSED, Status.FAILED, "newly failing"),
        (Status.SKIPPED, Status.CRASHED, "newly failing"),
        (Status.XFAILED, Status.XPASSED, "newly failing"),
        (Status.FAILED, Status.PASSED, "newly passing"),
        (Status.FAILED, Status.TIMEOUT, "other failure"),
        (Status.PASSED, Status.XFAILED, "other verdict"),
        (Status.PASSED, Status.SKIPPED, "no longer tested"),
        (Status.FAILED, Status.UNAVAILABLE, "no longer tested"),
        (Status.UNAVAILABLE, Status.PASSED, "newly tested"),
        (Status.UNAVAILABLE, Status.SKIPPED, "other verdict"),
    ],
)
def test_a_verdict_that_changed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Status, after: Status, change: str
) -> None:
    two_runs(
        tmp_path,
        [cell("bert", CheckOutcome("forward", before, Stage.RUN, "why"), CheckOutcome("loads"))],
        [cell("bert", CheckOutcome("forward", after, Stage.RUN, "why"), CheckOutcome("loads"))],
    )
    code, data = compared(capsys, tmp_path, "1", "2")
    found = [(one["change"], one["cell"], one["check"]) for one in data["verdicts"]]
    assert found == [(change, "bert-cpu-fp32", "forward")]
    assert code == (change == "newly failing")


def test_a_measurement_that_failed_is_one_change_though_it_does_not_say_at_which_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = CheckOutcome("performance", Status.OUT_OF_MEMORY, Stage.LOAD, "too little")
    two_runs(tmp_path, [cell("bert", parity(1e-7), speed(4.0))], [cell("bert", parity(1e-7), failed)])
    code, data = compared(capsys, tmp_path, "1", "2")
    found = [(one["change"], one["check"], one["run"]["status"]) for one in data["verdicts"]]
    assert (code, found) == (1, [("newly failing", "performance b4-s32", "out_of_memory")])
    _, data = compared(capsys, tmp_path, "2", "1")
    assert [(one["change"], one["check"]) for one in data["verdicts"]] == [("newly passing", "performance b4-s32")]


def test_the_same_failure_at_another_stage_is_another_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(
        tmp_path,
        [cell("bert", CheckOutcome("forward", Status.ERROR, Stage.RUN, "a"))],
        [cell("bert", CheckOutcome("forward", Status.ERROR, Stage.LOAD, "b"))],
    )
    code, data = compared(capsys, tmp_path, "1", "2")
    assert (code, [one["change"] for one in data["verdicts"]]) == (0, ["other failure"])


def test_cells_of_one_side_only_count_where_the_user_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_runs(tmp_path, [cell("bert", parity(1e-7)), cell("gpt", parity(1e-7))], [cell("bert", parity(1e-7))])
    code, data = compared(capsys, tmp_path, "1", "2")
    assert (code, data["worse"]) == (0, {"missing": 1})
    assert compared(capsys, tmp_path, "1", "2", "--fail-on", "missing, speed")[0] == 1
    assert compared(capsys, tmp_path, "2", "1", "--fail-on", "missing")[0] == 0


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (1e-7, 9e-7, None),  # a larger multiple, but a small share of what is allowed
        (4e-6, 6e-6, None),  # less than double
        (1e-6, 4e-6, True),
        (4e-6, 1e-6, False),
        (1e-6, float("inf"), True),
        (1e-6, float("nan"), True),
    ],
)
def test_a_drift_is_more_than_rounding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: float, after: float, worse: bool | None
) -> None:
    two_runs(tmp_path, [cell("bert", parity(before))], [cell("bert", parity(after))])
    code, data = compared(capsys, tmp_path, "1", "2")
    found = [(one["leaf"], one["check"], one["tolerance"], one["worse"]) for one in data["drift"]]
    assert found == ([] if worse is None else [("logits", "parity", 1e-5, worse)])
    assert code == bool(worse)


def test_distances_of_changed_models_and_of_other_weights_are_no_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def canary(distance: float) -> CheckOutcome:
        return CheckOutcome("canary", measures={"rel_l2": distance})

    two_runs(
        tmp_path,
        [cell("bert", canary(0.01)), cell("gpt", parity(1e-7))],
        [cell("bert", canary(0.9)), replace(cell("gpt", parity(1e-3)), weights="random")],
    )
    code, data = compared(capsys, tmp_path, "1", "2")
    assert (code, data["drift"]) == (0, [])
    assert data["surroundings"] == ["weights: gpt-cpu-fp32: tiny -> random: no numbers are compared"]


def test_memory_that_grew_by_more_than_its_noise_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def loaded(model: str, nbytes: int, peak: int) -> CellResult:
        return cell(model, speed(4.0, model=model, memory=peak), placement={"bytes": nbytes})

    two_runs(
        tmp_path,
        [loaded("bert", 10_000_000, 2**30), loaded("gpt", 10_000_000, 2**30), loaded("t5", 10_000_000, 2**30)],
        [
            loaded("bert", 10_200_000, 2**30),
            loaded("gpt", 10_000_000, 2**30 + 2**27),
            loaded("t5", 10_000_000, 2**30 + 2**22),
        ],
    )
    code, data = compared(capsys, tmp_path, "1", "2")
    assert [(one["model"], one["what"]) for one in data["memory"]] == [("bert", "weights"), ("gpt", "peak b4-s32")]
    assert (code, data["worse"]) == (1, {"memory": 2})


def test_what_else_differs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell("bert", parity(1e-7))]
    write_run(tmp_path, 1, cells, options={"reports": "a", "devices": ["cpu"]})
    write_run(tmp_path, 2, cells, options={"reports": "b", "devices": ["cuda:0"]}, versions={"torch": "2.14.0"})
    _, data = compared(capsys, tmp_path, "1", "2")
    assert data["surroundings"] == ["versions: torch: 2.13.0 -> 2.14.0", "options: devices: ['cpu'] -> ['cuda:0']"]


def test_a_run_that_was_killed_is_said_to_be_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_run(tmp_path, 1, [cell("bert", parity(1e-7))])
    write_run(tmp_path, 2, [cell("bert", parity(1e-7))])
    journal = tmp_path / "runs" / name / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    _, data = compared(capsys, tmp_path, "1", "2")
    assert data["surroundings"] == ["1: the run did not come to its end"]
    assert (data["baseline"]["complete"], data["run"]["complete"]) == (False, True)


def test_runs_are_named_in_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell("bert", parity(1e-7))]
    first = write_run(tmp_path, 1, cells)
    last = write_run(tmp_path, 2, cells)
    folder = tmp_path / "runs" / first
    for name in (first, "1", "0001", str(folder), str(folder / "journal.jsonl")):
        _, data = compared(capsys, tmp_path, name)  # with the latest run
        assert (data["baseline"]["id"], data["run"]["id"]) == (first, last)
    copied = tmp_path / "copied"  # as an artifact of CI: no links
    shutil.copytree(tmp_path / "runs", copied / "runs")
    _, data = compared(capsys, tmp_path, "1", str(copied))
    assert data["run"]["id"] == last


def test_a_run_is_compared_with_the_history_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(fastest: float) -> tuple[CellResult, Measurement]:
        outcome = speed(*(fastest * (1 + 0.001 * at) for at in range(32)))
        return cell("bert", outcome, parity(1e-6)), Measurement.from_json(outcome.measures["measurements"][0])

    database = BenchmarkDatabase(tmp_path / "hf.duckdb")
    for number, fastest in enumerate((4.0, 4.02, 3.99, 9.0)):  # the last one begins after the run
        of_cell, point = measured(fastest)
        day = f"2026-01-2{number}" if number < 3 else "2026-02-20"
        changed: dict[str, Any] = {"started_at": f"{day}T12:00:00+00:00", "completed_at": f"{day}T13:00:00+00:00"}
        database.write_run(record(cells=[of_cell], measurements=[point], machine=MACHINE, **changed))
    write_run(tmp_path, 1, [replace(measured(4.6)[0], checks=[*measured(4.6)[0].checks[:1], parity(5e-6)])])
    code, data = compared(capsys, tmp_path, str(tmp_path / "hf.duckdb"), "1")
    assert (data["baseline"]["kind"], data["baseline"]["runs"]) == ("history", 3)
    assert code == 1
    assert data["worse"] == {"drift": 1, "speed": 1}
    (timing,) = data["speed"]["measurements"]
    assert (timing["baseline_ms"], timing["run_ms"], timing["verdict"]) == (4.0, 4.6, "slower")


def test_the_record_of_a_run_follows_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_runs(
        tmp_path,
        [cell("bert", parity(1e-6), speed(4.0, 4.1)), cell("gpt", parity(1e-7)), cell("t5", parity(1e-7))],
        [cell("bert", parity(4e-6), speed(5.0, 5.1, memory=2**31)), cell("gpt", parity(float("inf"), Status.FAILED))],
    )
    _, data = compared(capsys, tmp_path, "1", "2")
    assert all((data["drift"], data["memory"], data["verdicts"], data["speed"]["devices"]))
    schemas = Registry().with_resources(
        (f"urn:pytest-hfaccel:schema:{n}:1", Resource.from_contents(load_schema(n))) for n in SCHEMAS
    )
    Draft202012Validator(load_schema("comparison"), registry=schemas).validate(data)


def test_the_comment_for_a_pull_request_shows_what_is_worse_and_folds_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "`</summary><img src=x> @everyone`\nsecond line"
    two_runs(
        tmp_path,
        [cell("bert", parity(1e-7)), cell("gpt", parity(1e-7, Status.FAILED, reason="off"))],
        [cell("bert", parity(0.5, Status.FAILED, reason=hostile)), cell("gpt", parity(1e-7))],
    )
    comment = tmp_path / "comment.md"
    code = main(["compare", "1", "2", "--reports", str(tmp_path), "--format", "markdown", "--output", str(comment)])
    text = comment.read_text(encoding="utf-8")
    assert code == 1
    assert text.startswith("### Worse: 1 check newly failing, 1 number drifted\n")
    assert (
        "**Newly failing (1)**\n\n- `bert-cpu-fp32 parity (bert): passed -> failed: '</summary><img src=x> @everyone'`"
        in text
    )
    assert "<details><summary>newly passing (1)</summary>" in text
    assert all(line.count("`") in (0, 2, 4) for line in text.splitlines())
    assert "newly passing (1)\n  gpt-cpu-fp32 parity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("7",), r"A=7: there is no such run in .*The last ones: 0001-.*`hfaccel runs --reports"),
        (("2",), r"A=2 and B=latest are the same run: 0002-.*`hfaccel runs` lists"),
        (("1", "none.jsonl"), r"B=none\.jsonl: there is no such run"),
        (("1", "2", "--fail-on", "speed,verdict"), r"--fail-on: 'verdict' is not allowed\. Allowed: verdicts, missing"),
        (("1", "2", "--fail-on", "none,speed"), r"--fail-on: 'none' is not allowed\. .*none alone"),
        (("1", "2", "--least-change", "5"), r"--least-change: 5 is not allowed\. Allowed: between 0 and 1"),
        (("{tmp}/empty.jsonl", "1"), r"A=.*empty\.jsonl is no journal of a run: .*hfaccel runs"),
        (
            ("1", "{tmp}/hf.duckdb"),
            r"a database cannot be the run that is judged\..*hfaccel compare hfaccel.duckdb RUN",
        ),
    ],
)
def test_a_mistake_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], says: str
) -> None:
    two_runs(tmp_path, [cell("bert", parity(1e-7))], [cell("bert", parity(1e-7))])
    (tmp_path / "empty.jsonl").write_text("")
    if any("duckdb" in text for text in arguments):
        BenchmarkDatabase(tmp_path / "hf.duckdb").write_run(record())
    named = [text.format(tmp=tmp_path) for text in arguments]
    assert main(["compare", *named, "--reports", str(tmp_path)]) == 2
    assert re.search(says, capsys.readouterr().err.replace("\n", " "))
