"""`--hf-explain`: the first failures of a run are explained at its end, and no verdict changes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.events import CheckFinished, EventStream
from pytest_hfaccel.core.results import CheckOutcome, Ended, Stage, Status
from pytest_hfaccel.plugin import explaining
from pytest_hfaccel.plugin.state import OPTIONS
from pytest_hfaccel.reporting.journal import read_journal
from pytest_hfaccel.reporting.run_reports import RunReports
from pytest_hfaccel.reporting.runs import RunFolder
from tests.harness import Project
from tests.integration.test_cause_comes_first import MODULE
from tests.unit.reporting.report_samples import HEADER, make_result
from tests.unit.reporting.test_reports_schema import validator

WRONG = CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "logits: rel-L2 0.2 > 1e-05")
ANSWER = {
    "cause": {
        "cause": "exporter",
        "because": "the graph computes something else",
        "experiments": [
            {"name": "the cell again", "outcome": "differs", "error": 0.2, "allowed": 1e-5, "about": "", "leaf": "x"}
        ],
    },
    "divergence": ["First divergence: a.b"],
}


@pytest.fixture
def finished(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """End a run with some cells, `hfaccel explain` being a function; return its results, its folder and the calls."""

    def finish(*cells: tuple[str, CheckOutcome], answer: str = json.dumps(ANSWER), limit: str = "60") -> Any:
        calls: list[list[str]] = []

        def run(command: list[str], **_: Any) -> Any:
            calls.append(command)
            return SimpleNamespace(stdout=answer, stderr="Traceback\nValueError: no", returncode=1)

        monkeypatch.setattr("pytest_hfaccel.plugin.explaining.subprocess.run", run)
        reports = RunReports(lambda header: RunFolder(tmp_path, header), keep_runs=9)
        stream = EventStream(lambda: HEADER, [reports])
        for model, outcome in cells:
            facts = {**make_result(model, "bert", "class" if not model else "cpu", "fp32", []).to_json()}
            facts = {key: facts[key] for key in ("cell", "model", "architecture", "module", "task", "device", "dtype")}
            stream.finish_check(CheckFinished({**facts, "weights": "tiny"}, outcome, 1, f"t::{model}"))
        config: Any = SimpleNamespace(
            stash={OPTIONS: RunConfig(explain=limit)}, invocation_params=SimpleNamespace(dir=tmp_path)
        )
        explaining.explain_failures(config, SimpleNamespace(reports=reports, stream=stream))  # type: ignore[arg-type]
        stream.finish(Ended.FINISHED, {"finished": HEADER["finished"], "pool": []})
        return stream.results, reports.directory, calls

    return finish


def wrong(**changes: Any) -> CheckOutcome:
    return CheckOutcome(**{**vars(WRONG), "measures": {}, **changes})


def test_the_answer_stands_in_the_record_the_journal_and_the_terminal(finished: Any) -> None:
    results, folder, calls = finished(("a", wrong()), ("b", CheckOutcome("parity")))
    (command,) = calls
    assert command[3:6] == ["explain", "a-cpu-fp32", "--run"]
    found, right = results
    assert (found.status, found.checks[0].cause) == (Status.FAILED, "exporter")
    assert found.checks[0].measures["explanation"]["experiments"]["the cell again"]["error"] == 0.2
    assert "explanation" not in right.checks[0].measures
    lines = list(explaining.lines_of(results))
    assert lines == ["a-cpu-fp32 parity: exporter: the graph computes something else", "    First divergence: a.b"]
    journal = read_journal(folder / "journal.jsonl")
    assert [each.checks[0].cause for each in journal.results] == ["exporter", ""]
    assert not journal.problems
    written = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    (line,) = [each for each in written if each["type"] == "explained"]
    validator("journal").validate(line)
    (report,) = (folder / "by_class").glob("*.json")
    record = json.loads(report.read_text(encoding="utf-8"))["cells"][0]
    assert record["checks"][0]["cause"] == "exporter"


def test_the_first_three_failures_whose_cause_is_not_known_are_explained(finished: Any) -> None:
    known = wrong(cause="numerics")
    crashed = wrong(status=Status.CRASHED)
    _, _, calls = finished(("k", known), ("c", crashed), *((name, wrong()) for name in "abde"))
    assert [command[4] for command in calls] == ["a-cpu-fp32", "b-cpu-fp32", "d-cpu-fp32"]


def test_what_cannot_be_explained_keeps_its_verdict_and_says_why(finished: Any) -> None:
    results, _, _ = finished(("a", wrong()), answer="")
    (found,) = results
    assert (found.status, found.checks[0].cause) == (Status.FAILED, "")
    assert found.checks[0].measures["explanation"]["because"].endswith("ended with 1 and said: ValueError: no")


@pytest.mark.parametrize("limit", ["off", "2"])
def test_without_time_nothing_is_explained(finished: Any, limit: str) -> None:
    _, _, calls = finished(("a", wrong()), limit=limit)
    assert not calls


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "soon"])
def test_a_wrong_limit_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="Allowed: off, or whole seconds"):
        _ = RunConfig.from_values({"explain": value}).explain_seconds


@pytest.mark.nightly
def test_a_run_explains_its_failures(project: Project) -> None:
    (project.directory / "test_hf_bert.py").unlink()
    project.write("test_hf_models.py", MODULE)
    options = ("--hf-model", "bert-base-uncased", "--hf-device", "fake:0", "-k", "forward or parity")
    broken = '{"*": {"error": "the kernel has no such thing"}}'
    run = project.run(*options, "--hf-explain", "240", HFACCEL_FAKE=broken, new_process=True)
    cell = "bert-base-uncased-fake0-fp32"
    explained, forward = run.statuses(cell), run.results[cell].checks[0]
    plain = project.run(*options, HFACCEL_FAKE=broken, new_process=True)
    assert explained == plain.statuses(cell)
    assert "passed" not in explained.values()
    assert forward.cause == "runtime", forward.measures
    assert f"{cell} forward: runtime: torch on the CPU is right" in run.output
    assert "causes" not in plain.output


def test_a_wrong_limit_is_a_usage_error(project: Project) -> None:
    run = project.run("--hf-model", "bert-base-uncased", "--hf-explain", "soon")
    assert run.code == 4
    assert "--hf-explain: 'soon' is not allowed. Allowed: off, or whole seconds, as in 60." in run.output
