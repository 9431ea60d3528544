"""`hfaccel explain CELL`: the cell is found in a run, with its model, device, dtype, weights and the run's options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main
from pytest_hfaccel.core.results import CheckOutcome, Ended, Stage, Status
from pytest_hfaccel.reporting.runs import RunFolder
from tests.unit.reporting.report_samples import HEADER, make_result

WRONG = CheckOutcome("parity", Status.FAILED, Stage.COMPARE, "logits: rel-L2 0.2 > 1e-05\nmore")
NODE = "test_hf_bert.py::TestBert::test_parity[bert-base-uncased-cpu-fp32]"


def write_run(reports: Path) -> str:
    folder = RunFolder(reports, {**HEADER, "options": {"registries": [], "cache": ""}})
    cells = [
        make_result("bert-base-uncased", "bert", "class", "fp32", [CheckOutcome("resolves")]),
        make_result("bert-base-uncased", "bert", "cpu", "fp32", [CheckOutcome("forward"), WRONG]),
        make_result("gpt2", "gpt2", "onnxruntime:CPU", "fp32", [WRONG]),
        make_result("gpt2", "gpt2", "onnxruntime:CPU", "fp16", [CheckOutcome("parity")]),
    ]
    folder.journal.start(NODE, module="bert", cell="bert-base-uncased-cpu-fp32", check="parity")
    for cell in cells:
        folder.journal.append(cell)
    folder.finish(cells, {"finished": HEADER["finished"]}, Ended.FINISHED, 20)
    return folder.id


@pytest.mark.parametrize("name", ["bert-base-uncased-cpu-fp32", NODE, f"elsewhere/{NODE}"])
def test_a_cell_is_explained_by_its_name_alone(
    name: str,
    tmp_path: Path,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    run = write_run(tmp_path)
    assert main(["explain", name, "--reports", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bert-base-uncased-cpu-fp32"
    first = "probably transformers: parity failed at stage compare: logits: rel-L2 0.2 > 1e-05"
    assert lines[1] == f"In run {run}: {first}"
    assert lines[2].startswith("No module adds more than float32 must cost")


def test_several_cells_of_a_name_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path)
    assert main(["explain", "gpt2-onnxruntime:CPU-*", "--reports", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert "names 2 cells" in message
    assert "gpt2-onnxruntimecpu-fp32  failed  gpt2, tiny weights" in message
    assert "gpt2-onnxruntimecpu-fp16  passed" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gpt2-onnxruntimecpu-bf16"], "Its 3 cells are like: gpt2-onnxruntimecpu-fp"),
        (["gpt2", "--run", "1"], "has no such cell"),
        (["gpt2-cpu-fp32", "--run", "7"], "--run=7: there is no such run"),
        (["gpt2-cpu-fp32", "--run", "1", "--dtype", "fp16"], "a cell of a run has its own"),
        (["x.py::T::test_parity[gpt2-cpu-fp32]"], "has no such cell"),
    ],
)
def test_a_name_that_is_no_cell(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path)
    assert main(["explain", *arguments, "--reports", str(tmp_path)]) == 1
    assert says in capsys.readouterr().err


def test_without_a_run_a_cell_cannot_be_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "gpt2-cpu-fp32", "--reports", str(tmp_path)]) == 1
    assert "there is no run in" in capsys.readouterr().err


def test_options_of_the_run_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path, {**HEADER, "options": {"registries": [str(tmp_path / "gone.yaml")]}})
    cells = [make_result("mine", "bert", "cpu", "fp32", [WRONG])]
    folder.journal.append(cells[0])
    folder.finish(cells, {"finished": HEADER["finished"]}, Ended.FINISHED, 20)
    assert main(["explain", "mine-cpu-fp32", "--reports", str(tmp_path)]) == 1
    assert "gone.yaml" in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["options"]["registries"]


@pytest.mark.parametrize("elements", [2**18, 2**10], ids=["the-process-grows", "it-fits-into-freed-memory"])
def test_a_leak_is_explained_by_the_line_that_allocates(
    elements: int,
    tmp_path: Path,
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import torch
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    kept: list[torch.Tensor] = []
    right = GPT2MLP.forward

    def leaking(self: GPT2MLP, hidden: torch.Tensor) -> torch.Tensor:
        kept.append(torch.zeros(elements))
        return right(self, hidden)

    monkeypatch.setattr(GPT2MLP, "forward", leaking)
    monkeypatch.setenv("HFACCEL_CACHE", str(shared_cache / "hfaccel"))
    leaks = CheckOutcome("memory", Status.FAILED, Stage.RUN, "the process grew in 8 of 8 rounds")
    folder = RunFolder(tmp_path, {**HEADER, "options": {"registries": [], "cache": ""}})
    cells = [make_result("gpt2", "gpt2", "cpu", "fp32", [leaks])]
    folder.journal.append(cells[0])
    folder.finish(cells, {"finished": HEADER["finished"]}, Ended.FINISHED, 20)
    assert main(["explain", "gpt2-cpu-fp32", "--reports", str(tmp_path), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    site = answer["leak"]["sites"][0]
    line = leaking.__code__.co_firstlineno + 1
    assert (site["file"], site["line"]) == (__file__, line)
    assert site["operator"] == "aten.zeros.default"
    assert {each["file"] for each in answer["leak"]["sites"]} == {__file__}
    assert answer["divergence"][0].startswith("Leak: each run leaves ")
    assert f"allocated at {__file__}:{line}: kept.append" in answer["divergence"][0]
    assert answer["cause"]["cause"] == "transformers"
    assert "allocated by the class's code" in answer["cause"]["because"]
