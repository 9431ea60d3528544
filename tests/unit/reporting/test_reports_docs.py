"""The page about the reports: its Python runs, its JSON follows the schemas, and no field of the summary is missing."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from pytest_hfaccel.reporting import Journal, load_schema, write_reports
from tests.unit.reporting.report_samples import HEADER, sample_results
from tests.unit.reporting.test_reports_schema import validator

PAGE = (Path(__file__).parents[3] / "docs" / "reports.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Journal(tmp_path / "reports" / "journal.jsonl", HEADER)) as journal:
        for result in sample_results():
            journal.append(result)
    write_reports(tmp_path / "reports", sample_results(), HEADER)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/reports.md", "exec"), {})  # noqa: S102


def test_json() -> None:
    cell, pool = (json.loads(text) for text in blocks("json"))
    validator("cell").validate(cell)
    assert set(pool) == {"pool"}
    assert set(pool["pool"]) == set(load_schema("summary")["properties"]["pool"]["properties"])
    assert pool["pool"]["requests"] == pool["pool"]["hits"] + pool["pool"]["misses"]


@pytest.mark.parametrize("field", load_schema("summary")["properties"])
def test_every_field_of_the_summary_is_explained(field: str) -> None:
    assert f"`{field}`" in PAGE
