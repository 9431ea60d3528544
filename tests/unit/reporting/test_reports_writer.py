"""The reports of a run: which files, what is in them, and what happens to those of the run before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Ended
from pytest_hfaccel.reporting import budget_line, last_lines, precision_line, write_reports
from tests.unit.reporting.report_samples import HEADER, sample_results


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    return data


def files_under(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    write_reports(tmp_path, sample_results(), HEADER)
    return tmp_path


def test_the_files_of_a_run(tmp_path: Path) -> None:
    written = write_reports(tmp_path, sample_results(), HEADER)
    assert files_under(tmp_path) == {
        "by_class/bert_models.json",
        "by_class/gpt_models.json",
        "by_hardware/cpu_results.json",
        "by_hardware/openvino_results.json",
        "by_hardware/cuda_results.json",
        "summary.json",
    }
    assert {str(path.relative_to(tmp_path)) for path in written} == files_under(tmp_path)
    assert written[-1] == tmp_path / "summary.json"


def test_every_file_says_where_it_comes_from(reports: Path) -> None:
    for name in files_under(reports):
        data = read(reports / name)
        assert data["schema"].startswith("pytest-hfaccel/")
        assert data["schema_version"] == 1
        assert data["machine"] == {"cpu": "Some CPU", "cores": 2}
        assert data["options"]["devices"] == ["cpu", "openvino:CPU"]
        assert data["commit"] == "0123456789abcdef0123456789abcdef01234567"
        assert data["versions"]["python"]
        assert data["versions"]["transformers"]
        assert data["run"]["started"] == "2026-01-31T12:00:00+00:00"


def test_by_class_has_the_module_s_cells_as_they_are(reports: Path) -> None:
    data = read(reports / "by_class/bert_models.json")
    assert (data["module"], data["architectures"]) == ("bert", ["BertForMaskedLM"])
    expected = [result for result in sample_results() if result.module == "bert"]
    assert [CellResult.from_json(cell) for cell in data["cells"]] == expected


def test_by_hardware_has_the_cells_of_its_kind_and_none_of_class_level(reports: Path) -> None:
    data = read(reports / "by_hardware/openvino_results.json")
    assert (data["kind"], data["devices"]) == ("openvino", ["openvino:CPU"])
    assert [cell["cell"] for cell in data["cells"]] == ["bert-base-uncased-openvinocpu-fp32"]
    assert data["counts"] == {"cells": {"failed": 1}, "checks": {"passed": 1, "failed": 1}}
    cpu = read(reports / "by_hardware/cpu_results.json")
    assert {cell["device"] for cell in cpu["cells"]} == {"cpu"}


def test_the_summary(reports: Path) -> None:
    summary = read(reports / "summary.json")
    assert summary["passed"] is False
    assert summary["counts"]["cells"] == {"passed": 2, "failed": 1, "xfailed": 1, "unavailable": 1}
    assert summary["by_class_and_device"] == {
        "bert": {"class": {"passed": 1}, "cpu": {"passed": 1}, "openvino:CPU": {"failed": 1}},
        "gpt": {"cpu": {"xfailed": 1}, "cuda:0": {"unavailable": 1}},
    }
    assert summary["weights"] == [
        {"model": "bert-base-uncased", "weights": "tiny", "reason": "not in the local cache"},
        {"model": "gpt2", "weights": "tiny", "reason": "not in the local cache"},
    ]
    (failure,) = summary["failures"]
    assert failure["cell"] == "bert-base-uncased-openvinocpu-fp32"
    assert (failure["status"], failure["stage"], failure["checks"]) == ("failed", "compare", ["parity"])
    assert failure["reason"] == "rel_l2 0.2 is above 1e-05"
    assert [entry["cell"] for entry in summary["expected_failures"]] == ["gpt2-cpu-bf16"]
    assert [entry["reason"] for entry in summary["unavailable"]] == ["no NVIDIA driver"]
    assert summary["skipped_checks"] == [
        {"check": "pipeline", "reason": "no pipeline for this task", "cells": ["bert-base-uncased-cpu-fp32"]}
    ]
    assert summary["absent_devices"] == {"cuda:0": "no NVIDIA driver"}


def test_cells_that_would_not_notice_the_next_lower_precision_are_counted_and_named(tmp_path: Path) -> None:
    results = sample_results()[:2]
    noticing = CheckOutcome("canary", measures={"twin": "run in fp16 on the CPU", "twin_rel_l2": 1e-3})
    blind = CheckOutcome("canary", measures={"twin": "outputs rounded to fp8", "twin_rel_l2": 1e-3, "blind_to": "fp8"})
    results[0].checks.append(noticing)
    results[1].checks.append(blind)
    write_reports(tmp_path, results, {})
    name = results[1].cell
    assert read(tmp_path / "summary.json")["precision_twins"] == {"noticed": 1, "blind_to": {"fp8": [name]}}
    line = f"precision: 1 cell would notice the next lower one, 1 blind to fp8 ({name})"
    assert precision_line(results) == line
    assert precision_line(sample_results()) == ""


def test_the_last_lines_say_how_errors_compare_with_what_rounding_must_cost() -> None:
    results = sample_results()[:2]
    assert budget_line(results) == ""
    results[0].checks[:] = [CheckOutcome("parity", measures={"budget": {"ratio": 0.91}})]
    results[1].checks[:] = [CheckOutcome("parity", measures={"budget": {"ratio": 1.62}})]
    line = f"error budget: in 2 passed cells the error is 0.91 to 1.6 times what rounding must cost ({results[1].cell})"
    assert budget_line(results) == line
    for result, size in zip(results, (1.1e-5, 0.02), strict=True):
        result.checks.append(CheckOutcome("canary", measures={"power": {"rel_l2": size}}))
    power = "power: 2 cells notice a wrong weight from the size on that moves the outputs by rel-L2 1.1e-05 to 0.02"
    assert last_lines(results) == [line, f"{power} ({results[1].cell})"]


def test_the_last_lines_name_the_cells_whose_inputs_could_not_be_judged() -> None:
    results = sample_results()[:2]
    assert last_lines(results) == []
    inputs = {"0": {"iou_scores": "..."}, "1": {"iou_scores": "...", "pred_masks": "..."}}
    results[1].checks.append(CheckOutcome("parity", measures={"not_judged": inputs}))
    line = "not judged: inputs for which rounding alone is beyond the limit, in 1 cells"
    assert last_lines(results) == [f"{line} ({results[1].cell}: iou_scores, pred_masks on 2)"]


def test_the_summary_adds_up_the_pools_of_all_processes(reports: Path) -> None:
    summary = read(reports / "summary.json")
    assert summary["pool"] == {
        "processes": 2,
        "requests": 5,
        "hits": 2,
        "misses": 3,
        "loads": 3,
        "failures": 0,
        "evictions": 0,
        "oom_retries": 0,
        "load_seconds": 0.75,
        "loads_by_key": {"bert-base-uncased tiny cpu fp32": 1, "gpt2 tiny cpu bf16": 2},
        "close_errors": ["gpt2 tiny cpu bf16: RuntimeError: driver is gone"],
    }
    assert len(summary["run"]["pool"]) == 2


def test_a_run_of_passing_cells_passed(tmp_path: Path) -> None:
    write_reports(tmp_path, sample_results()[:2], {})
    summary = read(tmp_path / "summary.json")
    assert summary["passed"] is True
    assert summary["ended"] == "finished"
    assert (summary["failures"], summary["pool"]["processes"], summary["absent_devices"]) == ([], 0, {})


def test_a_run_that_did_not_come_to_its_end_has_not_passed(tmp_path: Path) -> None:
    results = sample_results()[:2]
    write_reports(tmp_path, results, {}, ended=Ended.INTERRUPTED)
    summary = read(tmp_path / "summary.json")
    assert (summary["passed"], summary["ended"]) == (False, "interrupted")
    results[1].incomplete = True
    write_reports(tmp_path, results, {})
    assert read(tmp_path / "summary.json")["passed"] is False


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    results = sample_results()[:2]
    results[1].checks[0].measures = {
        "max_abs": float("nan"),
        "ratio": float("inf"),
        "where": Path("x"),
        "shape": (1, 2),
    }
    write_reports(tmp_path, results, {})
    cell = read(tmp_path / "by_hardware/cpu_results.json")["cells"][0]
    assert cell["checks"][0]["measures"] == {"max_abs": "nan", "ratio": "inf", "where": "x", "shape": [1, 2]}


def test_no_token_is_written(tmp_path: Path) -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    results = sample_results()
    results[2].checks[1].reason = f"401 for Bearer {token}"
    write_reports(tmp_path, results, {**HEADER, "command": f"pytest --token {token}", "options": {"models": [token]}})
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in files_under(tmp_path)]
    assert not any(token in text for text in texts)
    assert "hf_***" in (tmp_path / "summary.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Über/Klasse", "", "..", "with space"])
def test_a_module_of_any_name_gets_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    (result, *_) = sample_results()
    result.module = name
    path = write_reports(tmp_path, [result], {})[0]
    assert path.parent == tmp_path / "by_class"
    assert read(path)["module"] == name


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(
        ConfigError, match=r"reports/by_class/bert_models\.json: the report cannot be written: Not a dir"
    ):
        write_reports(tmp_path / "reports", sample_results(), HEADER)


def test_a_full_disk_leaves_the_old_report_whole(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: (reports / name).read_bytes() for name in files_under(reports)}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device\nFree space"):
        write_reports(reports, sample_results()[:2], HEADER)
    assert {name: (reports / name).read_bytes() for name in files_under(reports)} == before
