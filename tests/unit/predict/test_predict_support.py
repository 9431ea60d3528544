"""What is known of support: declared, then measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.results import CellResult, CheckOutcome, Status, nodes_of
from pytest_hfaccel.predict.measured_cells import (
    MeasuredCell,
    Support,
    cells_in,
    cells_of_measurements,
    measured_cells,
    measurements_of,
)
from pytest_hfaccel.predict.support import FAMILIES, KINDS, CompatibilityMatrix, declared_support
from tests.unit.predict.predict_samples import row


def cell(
    status: Status = Status.PASSED,
    *,
    model: str = "gpt2",
    device: str = "openvino:CPU",
    when: str = "2026-01-01T00:00:00+00:00",
    implementation: str = "real",
    dtype: str = "fp32",
    weights: str = "random",
    **measures: Any,
) -> MeasuredCell:
    checks = [CheckOutcome("performance", status, reason="why" if status.is_bad else None, measures=measures)]
    result = CellResult(
        cell=f"{model}-{device}-{dtype}",
        model=model,
        architecture="GPT2LMHeadModel",
        module="gpt",
        task="text-generation",
        device=device,
        dtype=dtype,
        weights=weights,
        implementation=implementation,
        checks=checks,
    )
    return MeasuredCell(result, when, "some CPU")


def entry(
    *cells: MeasuredCell, model: str = "gpt2", kind: str = "openvino", family: str = "text_generation"
) -> Support:
    return CompatibilityMatrix(cells).entry(model, "GPT2LMHeadModel", family, kind)


def test_without_measurements_the_declaration_stands() -> None:
    found = entry()
    assert (found.support, found.basis, found.when) == ("real", "declared", "")


def test_nothing_is_declared_as_simulated() -> None:
    supports = {declared_support(family, kind).support for family in FAMILIES for kind in KINDS}
    assert supports == {"real", "untested", "unavailable"}
    assert {declared_support(family, "webgpu").support for family in FAMILIES} == {"untested"}
    assert {declared_support("audio", kind).support for kind in ("executorch", "onnxruntime", "wasm", "webnn")} == {
        "real"
    }
    assert not declared_support("audio", "qualcomm").runs
    assert declared_support("multimodal", "mps").support == "untested"
    assert not declared_support("time_series", "openvino").runs


def test_a_measured_cell_overwrites_the_declaration() -> None:
    found = entry(cell(), family="multimodal")
    assert (found.support, found.basis) == ("real", "measured")
    assert (found.cell, found.where) == ("gpt2-openvino:CPU-fp32", "openvino:CPU of some CPU")
    assert entry(cell(Status.FAILED)).support == "failing"
    assert entry(cell(implementation="emulated", device="webgpu"), kind="webgpu").support == "emulated"


def test_a_cell_of_the_same_class_counts_after_one_of_the_model() -> None:
    other = cell(Status.CRASHED, model="distilgpt2")
    assert entry(other).support == "failing"
    assert entry(cell(), other).support == "real"


def test_the_last_run_stands_and_its_best_dtype_speaks() -> None:
    before = cell(when="2025-01-01T00:00:00+00:00")
    now = [cell(Status.FAILED, dtype="int8"), cell(dtype="fp32")]
    assert entry(before, *now).support == "real"
    assert entry(before, now[0]).support == "failing"


@pytest.mark.parametrize("status", [Status.HUB_ERROR, Status.GATED, Status.SKIPPED, Status.INCOMPLETE])
def test_a_cell_that_was_not_tried_says_nothing(status: Status) -> None:
    assert entry(cell(status)).basis == "declared"


def test_an_absent_device_says_nothing_about_the_model() -> None:
    found = entry(cell(Status.UNAVAILABLE, device="cuda:0"), kind="cuda")
    assert (found.support, found.basis) == ("untested", "declared")
    assert "not measured: unavailable" in found.reason


def test_measured_rows_speak_for_the_hardware_and_tiny_ones_do_not() -> None:
    found = CompatibilityMatrix(cells_of_measurements([row(device="openvino:CPU")])).entry(
        "bert-base-uncased", None, "multimodal", "openvino"
    )
    assert (found.support, found.basis) == ("real", "measured")
    tiny = cell(measurements=[row(weights="tiny").to_json()])
    assert measurements_of([tiny, cell(measurements=[row().to_json()])]) == [row()]


def test_the_matrix_by_family_counts_what_was_measured() -> None:
    matrix = CompatibilityMatrix([cell(), cell(Status.FAILED, model="distilgpt2")])
    rows = matrix.by_family(lambda _: "text_generation")
    measured = rows["text_generation"]["openvino"]
    assert (measured["support"], measured["basis"]) == ("real", "measured")
    assert (measured["cells_that_ran"], measured["cells_measured"]) == (1, 2)
    assert rows["vision"]["openvino"]["basis"] == "declared"
    assert list(rows) == list(FAMILIES)


def test_of_a_cell_that_ran_twice_the_newest_record_counts() -> None:
    failed = cell(Status.FAILED, when="2026-01-02T00:00:00+00:00")
    rows = CompatibilityMatrix([cell(), failed]).by_family(lambda _: "text_generation")
    assert rows["text_generation"]["openvino"]["support"] == "failing"
    assert rows["text_generation"]["openvino"]["cells_measured"] == 1


def test_in_the_matrix_too_an_absent_device_says_nothing() -> None:
    absent = cell(Status.UNAVAILABLE, device="webgpu")
    found = CompatibilityMatrix([absent]).by_family(lambda _: "text_generation")["text_generation"]["webgpu"]
    assert (found["support"], found["basis"]) == ("untested", "declared")
    assert "not measured: unavailable" in found["reason"]


def test_a_family_beyond_the_six_is_there_if_it_was_measured() -> None:
    assert "time_series" not in CompatibilityMatrix([]).by_family(lambda _: "time_series")
    assert "time_series" in CompatibilityMatrix([cell()]).by_family(lambda _: "time_series")


def test_what_was_measured_on_a_device_with_its_nodes_and_its_run() -> None:
    on_webgpu = cell(device="webgpu", implementation="emulated")
    details = {"nodes": {"webgpu": 83, "wasm": 4}, "nodes_on_cpu": {"Reshape": 2, "Cast": 2}}
    on_webgpu.result.placement = {"details": details}
    other = cell(Status.FAILED, device="webgpu", implementation="emulated", model="distilgpt2")
    other.result.placement = {"details": {"nodes": {"webgpu": 5}}}
    found = CompatibilityMatrix([on_webgpu, replace(other, run="0002-b", when="2026-02-01")]).by_device()
    assert found == {
        "webgpu": {
            "implementation": "emulated",
            "cells_that_ran": 1,
            "cells_measured": 2,
            "checks_passed": 1,
            "checks_run": 2,
            "run": "0002-b",
            "when": "2026-02-01",
            "where": "webgpu of some CPU",
            "nodes": {"webgpu": 88, "wasm": 4},
            "not_taken": {"Reshape": 2, "Cast": 2},
        }
    }


def test_cells_of_the_database_are_as_good_as_those_of_reports(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    from pytest_hfaccel.history import BenchmarkDatabase, RunRecord

    one = cell(device="wasm").result
    one.placement = {"details": {"nodes": {"wasm": 7}}}
    failed = cell(Status.FAILED, device="wasm", model="distilgpt2").result
    path = tmp_path / "runs.duckdb"
    for day, results in (("01", [one, failed]), ("02", [one])):
        started, ended = f"2026-01-{day}T00:00:00", f"2026-01-{day}T00:01:00"
        BenchmarkDatabase(path).write_run(RunRecord("pytest", "integration", started, ended, True, cells=results))
    found = cells_in([path])
    assert [(each.result.model, each.when, str(each.result.status)) for each in found] == [
        ("distilgpt2", "2026-01-01T00:00:00+00:00", "failed"),
        ("gpt2", "2026-01-02T00:00:00+00:00", "passed"),
    ]
    assert nodes_of(found[1].result.placement).by_provider == {"wasm": 7}
    assert CompatibilityMatrix(found).by_device()["wasm"]["cells_that_ran"] == 1


def test_cells_are_read_from_the_journals_of_runs(tmp_path: Path) -> None:
    from pytest_hfaccel.reporting import Journal

    header = {"started": "2026-02-01T00:00:00+00:00", "machine": {"cpu": {"name": "a CPU"}}}
    first, second = tmp_path / "runs" / "0001-a", tmp_path / "runs" / "0002-b"
    resumed = Journal(first / "journal.jsonl", header)
    resumed.keep(cell(Status.FAILED).result, "0000-z")  # run again below
    resumed.keep(cell(dtype="bf16").result, "0000-z")
    resumed.append(cell().result)
    resumed.close()
    with_journal = Journal(second / "journal.jsonl", {**header, "started": "2026-03-01T00:00:00+00:00"})
    with_journal.append(cell(model="distilgpt2").result)
    with_journal.close()
    found = measured_cells(tmp_path)
    assert [(each.result.model, each.result.dtype, str(each.result.status), each.when[:10]) for each in found] == [
        ("gpt2", "fp32", "passed", "2026-02-01"),
        ("gpt2", "bf16", "passed", "2026-02-01"),
        ("distilgpt2", "fp32", "passed", "2026-03-01"),
    ]
    assert found[0].machine == "a CPU"
    assert [each.result.model for each in measured_cells(second)] == ["distilgpt2"]
    assert measured_cells(tmp_path / "absent") == []
