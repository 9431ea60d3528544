"""What a resumed run starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports import JOURNAL, Journal, keep_finished
from pytest_hfaccel.reports.resuming import read_finished
from pytest_hfaccel.results import CellResult, CheckOutcome


def cell(name: str, *, incomplete: bool = False) -> CellResult:
    facts = {"model": name, "architecture": "X", "module": "x", "task": "t", "device": "cpu", "dtype": "fp32"}
    checks = [CheckOutcome("forward")]
    return CellResult(f"{name}-cpu-fp32", **facts, weights="tiny", checks=checks, incomplete=incomplete)


def journal(directory: Path, *cells: CellResult, resume: bool = False) -> None:
    with_header = Journal(directory / JOURNAL, {"options": {"resume": resume}})
    for found in cells:
        with_header.append(found)
    with_header._file.close()  # as a killed run leaves it


def test_without_a_journal_there_is_nothing(tmp_path: Path) -> None:
    assert read_finished(keep_finished(tmp_path)) == {}


def test_finished_cells_are_kept_and_unfinished_ones_are_not(tmp_path: Path) -> None:
    journal(tmp_path, cell("a"), cell("b", incomplete=True))
    assert read_finished(keep_finished(tmp_path)) == {("x", "a-cpu-fp32"): cell("a")}


def test_a_resumed_run_that_is_cut_short_loses_nothing_of_the_first(tmp_path: Path) -> None:
    journal(tmp_path, cell("a"), cell("b"))
    keep_finished(tmp_path)
    journal(tmp_path, cell("a"), cell("c"), resume=True)
    assert set(read_finished(keep_finished(tmp_path))) == {cell(name).key for name in "abc"}


def test_a_run_of_its_own_starts_anew(tmp_path: Path) -> None:
    journal(tmp_path, cell("a"))
    keep_finished(tmp_path)
    journal(tmp_path, cell("b"))
    assert set(read_finished(keep_finished(tmp_path))) == {("x", "b-cpu-fp32")}


def test_other_versions_are_refused(tmp_path: Path) -> None:
    journal(tmp_path, cell("a"))
    path = tmp_path / JOURNAL
    head, *rest = path.read_text(encoding="utf-8").splitlines()
    header = json.loads(head)
    header["versions"]["transformers"] = "5.0.0"
    path.write_text("\n".join([json.dumps(header), *rest]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"transformers 5\.0\.0 -> "):
        keep_finished(tmp_path)
