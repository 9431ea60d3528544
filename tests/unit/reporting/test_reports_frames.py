"""`load_run`: a journal as pandas frames, and as tables in a notebook."""

from __future__ import annotations

import io
import re
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest

import pytest_hfaccel
from pytest_hfaccel import load_run
from pytest_hfaccel.core.errors import ConfigError, PackageMissing
from pytest_hfaccel.core.results import CheckOutcome, Stage, Status
from pytest_hfaccel.reporting import Journal
from tests.unit.reporting.report_samples import HEADER, make_result, sample_results

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"
MEASURED = {
    "measurements": [
        {"model": "gpt2", "batch": 4, "length": 8, "memory_bytes": 100, "latency": {"median_ms": 2.0, "p95_ms": 3.0}}
    ]
}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    with closing(Journal(folder / "journal.jsonl", HEADER)) as journal:
        for result in sample_results():
            journal.append(result, {"a test": 1.5})
    return folder


@pytest.mark.skipif(int(pd.__version__.partition(".")[0]) < 3, reason="the page shows what pandas 3 prints")
def test_the_example_of_the_documentation(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## In Python and notebooks")[2]
    code, expected = (re.findall(rf"```{name}\n(.*?)```", section, re.DOTALL)[0] for name in ("python", "text"))
    monkeypatch.chdir(reports.parent)
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, str(PAGE), "exec"), {})  # noqa: S102
    assert printed.getvalue().strip() == expected.strip()


def test_every_cell_and_check_is_a_row(reports: Path) -> None:
    run = load_run(reports / "journal.jsonl")
    results = sample_results()
    assert list(run.cells["status"]) == [str(result.status) for result in results]
    assert len(run.checks) == sum(len(result.checks) for result in results)
    failed = run.checks.query("status == 'failed'").iloc[0]
    assert (failed["stage"], failed["measures"]["rel_l2"]) == ("compare", 0.2)
    assert set(run.numbers["measure"]) >= {"rel_l2"}
    assert set(run.cells["seconds"]) == {1.5}
    assert run.is_complete
    assert run.measurements.empty


def test_speed_is_a_row_per_point(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.jsonl", HEADER)) as journal:
        journal.append(make_result("gpt2", "gpt", "cpu", "fp32", [CheckOutcome("performance", measures=MEASURED)]))
    (row,) = load_run(tmp_path).measurements.to_dict("records")
    assert (row["model"], row["batch"], row["median_ms"], row["samples_per_second"]) == ("gpt2", 4, 2.0, 2000.0)
    assert row["device"] == "cpu"


def test_of_reports_it_is_the_run_that_began_last(tmp_path: Path) -> None:
    for number, model in ((1, "older"), (2, "newer")):
        folder = tmp_path / "runs" / f"000{number}-20260131T120000Z-3fa{number}"
        with closing(Journal(folder / "journal.jsonl", HEADER)) as journal:
            journal.append(make_result(model, "gpt", "cpu", "fp32", [CheckOutcome("parity")]))
    assert list(load_run(tmp_path).cells["model"]) == ["newer"]
    assert list(load_run(tmp_path / "runs").cells["model"]) == ["newer"]
    assert list(load_run(str(folder.parent / "0001-20260131T120000Z-3fa1")).cells["model"]) == ["older"]


def test_a_killed_run_is_read_up_to_its_torn_line(reports: Path) -> None:
    journal = reports / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-150])
    run = load_run(reports)
    assert not run.is_complete
    assert len(run.problems) == 1
    assert "It did not come to its end." in run._repr_html_()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no run here: neither journal.jsonl nor runs/\*/journal.jsonl"):
        load_run(tmp_path)
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(ConfigError, match="is no journal of a run"):
        load_run(tmp_path / "text")


def test_tables_in_a_notebook_need_no_pandas_and_hold_no_markup(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    run = load_run(reports)
    assert "<td>bert-base-uncased [tiny]</td>" in run._repr_html_()
    hostile = make_result("<script>", "gpt", "cpu", "fp32", [CheckOutcome("parity", Status.FAILED, Stage.RUN, "<b>")])
    assert "&lt;script&gt;" in hostile._repr_html_()
    assert "<b>" not in hostile._repr_html_()
    with pytest.raises(PackageMissing, match=r"pip install 'pytest-hfaccel\[notebook\]'"):
        run.cells  # noqa: B018


def test_it_is_public() -> None:
    assert "load_run" in pytest_hfaccel.__all__


def test_a_run_says_in_a_line_what_it_is(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.jsonl", {**HEADER, "command": "pytest -n 2"})) as journal:
        journal.append(sample_results()[0])
    assert repr(load_run(tmp_path)) == (
        f"<run {tmp_path / 'journal.jsonl'}: pytest -n 2: 1 cell. See .cells, .checks, .numbers, .measurements>"
    )
