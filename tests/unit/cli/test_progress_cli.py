"""The progress of commands: a line per cell without a terminal, rows in one."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pytest_hfaccel.cli.progress import ClusterProgress, StepProgress
from pytest_hfaccel.core.events import CellFinished
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Status
from pytest_hfaccel.reporting.progress import ExpectedCell


def finished(cell: str, status: Status = Status.PASSED) -> CellFinished:
    names: dict[str, Any] = {"model": cell, "architecture": "A", "task": "t", "device": "cpu", "dtype": "fp32"}
    return CellFinished(CellResult(cell=cell, module="m", weights="tiny", **names, checks=[CheckOutcome("c", status)]))


CELLS = {("m", name): ExpectedCell(name, 10.0) for name in ("a", "b")}


def test_a_cluster_without_a_terminal_has_a_line_per_cell(capsys: pytest.CaptureFixture[str]) -> None:
    with ClusterProgress(CELLS, "2 nodes") as progress:
        progress.node_of = {("m", "b"): "node2"}
        progress.show("node1", "a parity")
        progress(finished("a"))
        progress(finished("b", Status.FAILED))
    assert capsys.readouterr().err.splitlines() == ["2 cells; 2 nodes", "[1/2] a passed", "[2/2] b failed on node2"]


def test_a_cluster_in_a_terminal_has_a_row_per_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = ClusterProgress(CELLS, "2 nodes", workers=2, is_recorded=True)
    progress.show("node1", "a parity")
    progress.show("node2", "")
    progress(finished("b", Status.FAILED))
    first, *nodes = progress._lines()
    assert first.startswith(" 1/2 cells, 1 failed | 0 s, about ")
    assert nodes == ["node1  a parity  0 s", "node2  idle"]


def test_steps_count_and_say_what_is_done_now() -> None:
    progress = StepProgress(3, "steps")
    progress.begin("cpu at fp32", "matmul")
    assert progress._lines() == [" 0/3 steps | 0 s", "cpu at fp32 (matmul)  0 s"]
    progress.finish()
    assert progress._lines() == [" 1/3 steps | 0 s"]


def test_models_are_said_line_by_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(1, "models")
    progress.begin_one_of(0, 2, "gpt2")
    progress.begin_one_of(1, 2, "t5-small")
    assert capsys.readouterr().err.splitlines() == ["hfaccel: 1 of 2: gpt2", "hfaccel: 2 of 2: t5-small"]
    assert progress._lines() == [" 1/2 models | 0 s", "t5-small  0 s"]
