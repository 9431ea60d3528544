"""`hfaccel compatibility`: the table of families and hardware, from what earlier runs have measured."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.reporting import JOURNAL, Journal

STARTED = "2026-02-03T04:05:06+00:00"
RUN = "0007-20260203T040506Z-abcd"


def cell(model: str, architecture: str, device: str, *checks: CheckOutcome, nodes: object = None) -> CellResult:
    return CellResult(
        cell=f"{model}-{device.replace(':', '')}-fp32",
        model=model,
        architecture=architecture,
        module="gpt",
        task="text-generation",
        device=device,
        dtype="fp32",
        weights="tiny",
        implementation="emulated" if device == "webgpu" else "real",
        placement={"details": nodes} if nodes else {},
        checks=list(checks),
    )


CELLS = (
    cell("gpt2", "GPT2LMHeadModel", "class", CheckOutcome("resolves")),
    cell("gpt2", "GPT2LMHeadModel", "onnxruntime:CPU", CheckOutcome("forward"), CheckOutcome("parity")),
    cell(
        "gpt2",
        "GPT2LMHeadModel",
        "webgpu",
        CheckOutcome("parity"),
        nodes={"nodes": {"webgpu": 83, "wasm": 4}, "nodes_on_cpu": {"Reshape": 3, "Cast": 1}},
    ),
    cell("vit", "ViTForImageClassification", "webnn", CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "off")),
)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    header = {"id": RUN, "started": STARTED, "machine": {"cpu": {"name": "a CPU"}}, "command": "pytest"}
    written = Journal(tmp_path / JOURNAL, header)
    for each in CELLS:
        written.append(each)
    written.close()
    return tmp_path / JOURNAL


def test_the_table_says_what_is_measured_and_what_is_declared(
    journal: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["compatibility", str(journal), "--hardware", "cuda", "webgpu", "webnn", "onnxruntime", "wasm"]) == 0
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    rows = {name: rest for name, *rest in lines}
    assert rows["Model family"] == ["CUDA", "WebGPU", "WebNN", "ONNX Runtime", "WASM"]
    assert rows["Text generation (GPT-2, ...)"] == ["UNTESTED*", "EMULATED 1/1", "REAL*", "REAL 1/1", "REAL*"]
    assert rows["Vision (ViT, ...)"][2] == "FAILING 0/1"
    assert rows["Audio (Whisper, ...)"] == ["UNTESTED*", "UNTESTED*", "REAL*", "REAL*", "REAL*"]


def test_evidence_stands_below_the_table(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compatibility", str(journal)])
    lines = capsys.readouterr().out.splitlines()
    assert f"onnxruntime:CPU: REAL, 1 of 1 cells and 2 of 2 checks passed; run {RUN}, 2026-02-03" in lines
    assert (
        f"webgpu: EMULATED, 1 of 1 cells and 1 of 1 checks passed; run {RUN}, 2026-02-03; "
        "4 of 87 nodes were left to the CPU (3 Reshape, 1 Cast)"
    ) in lines


def test_markdown_has_a_row_per_family_and_marks(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compatibility", str(journal), "--format", "markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "| Model family | CUDA | MPS (Apple) | ROCm | OpenVINO | WebNN | WebGPU | ONNX Runtime |"
    )
    vision = next(line for line in lines if line.startswith("| Vision"))
    assert "| \N{CROSS MARK} FAILING (0/1) |" in vision
    assert "UNTESTED (declared)" in vision
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_json_has_entries_and_evidence(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compatibility", str(journal), "--json"])
    found = json.loads(capsys.readouterr().out)
    entry = found["families"]["text_generation"]["webgpu"]
    assert (entry["support"], entry["basis"], entry["run"], entry["when"]) == ("emulated", "measured", RUN, STARTED)
    assert found["families"]["audio"]["wasm"] == {
        "support": "real",
        "basis": "declared",
        "reason": "declared for the audio family",
    }
    assert found["devices"]["webgpu"]["not_taken"] == {"Reshape": 3, "Cast": 1}
    assert found["devices"]["webnn"]["cells_that_ran"] == 0
    assert "machine" not in found  # the journal may be another machine's


def test_csv_has_a_line_per_family_and_kind(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compatibility", str(journal), "--format", "csv", "--hardware", "webgpu", "wasm"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 12
    measured = [row for row in rows if row["basis"] == "measured"]
    assert [(row["family"], row["hardware"], row["checks_passed"]) for row in measured] == [
        ("text_generation", "webgpu", "1")
    ]


def test_without_a_place_this_project_and_this_machine_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HFACCEL_REPORTS", str(journal.parent))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    main(["compatibility", "--hardware", "cpu", "webgpu"])
    out = capsys.readouterr().out
    assert "EMULATED 1/1" in out
    machine = next(line for line in out.splitlines() if line.startswith("This machine"))
    assert machine.split()[2] == "present"
    assert main(["compatibility", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["cpu"]["implementation"] == "real"


def test_a_place_without_cells_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["compatibility", str(tmp_path / "empty")]) == 1
    assert "no cell of a device is in it" in capsys.readouterr().err
    assert main(["compatibility", str(tmp_path / "absent.jsonl")]) == 1
