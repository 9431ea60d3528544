"""Many cells: which points each gets, and what its record says, with processes that the test makes up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured, Point
from pytest_hfaccel.campaign import VERIFIED, Campaign, run_campaign, too_large
from pytest_hfaccel.campaign.processes import WorkerRequest
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import CPU, Cell, Device, ModelSpec, Weights, WeightsChoice
from pytest_hfaccel.history.recording import measurements_of
from tests.unit.history.store_samples import MEASURED

TEXT = ModelSpec("text", "BertForMaskedLM", "fill-mask", parameters=1000)
IMAGE = ModelSpec("image", "ViTForImageClassification", "image-classification", parameters=1000)
HUGE = ModelSpec("huge", "LlamaForCausalLM", "text-generation", parameters=10**15)


def cell(spec: ModelSpec = TEXT, device: Device = CPU, kind: Weights = Weights.RANDOM) -> Cell:
    return Cell(spec, device, "fp32", WeightsChoice(kind, "test"))


def campaign(*cells: Cell, **options: Any) -> Campaign:
    given: dict[str, Any] = {"batches": (1, 8), "lengths": (16, 32), "threads": 1, "cache_dir": Path("/x")}
    return Campaign(cells=cells, timeout=1.0, **{**given, **options})


def measured(request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
    """Everything passes and is measured, but for batch 8, which crashes."""
    from pytest_hfaccel.engine.cell_run import identity

    if request.checks:
        yield CellResult(**identity(request.cell, ""), checks=[CheckOutcome(name) for name in request.checks])
    for point in request.points:
        if point.batch == 8:
            yield NotMeasured(8, point.length, Status.CRASHED, Stage.RUN, "was killed by SIGFPE")
        else:
            yield replace(MEASURED, model=request.cell.model.name, batch=point.batch, length=point.length)


def run(what: Campaign) -> tuple[list[CellResult], list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    records = list(run_campaign(what, lambda cell, found: told.append((cell.id, type(found).__name__)), measured))
    return records, told


def test_a_record_holds_the_checks_and_every_point() -> None:
    what = campaign(cell())
    (record,), told = run(what)
    assert [check.name for check in record.checks] == [*VERIFIED, *["performance"] * 4]
    assert record.status == Status.CRASHED
    assert record.module == "bench"
    assert record.weights_reason == "test"
    assert [(one.batch, one.length) for one in measurements_of([record])] == [(1, 16), (1, 32)]
    assert record.checks[3].measures["median_ms"] == MEASURED.latency.median_ms
    assert [name for _, name in told] == ["CellResult", *["Measurement"] * 2, *["NotMeasured"] * 2]
    assert what.steps == len(told)


def test_only_verified_or_only_measured() -> None:
    assert [check.name for check in run(campaign(cell(), batches=()))[0][0].checks] == list(VERIFIED)
    (record,), told = run(campaign(cell(), batches=(1,), lengths=(16,), verify=False))
    assert [check.name for check in record.checks] == ["performance"]
    assert record.timings == {"load": 0.0, "convert": 0.0, "compile": 0.0}
    assert len(told) == 1


def test_a_model_without_text_has_no_lengths() -> None:
    assert campaign(cell(IMAGE)).points(cell(IMAGE)) == [Point(1), Point(8)]


def test_a_model_that_does_not_fit_is_not_tried() -> None:
    what = campaign(cell(HUGE), cell())
    (huge, text), told = run(what)
    assert huge.status == Status.SKIPPED
    assert "of main memory" in str(huge.reason)
    assert [check.name for check in huge.checks] == ["placement", *["performance"] * 4]
    assert text.status == Status.CRASHED
    assert len(told) == what.steps


@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (cell(replace(TEXT, parameters=10**9)), True),
        (cell(replace(TEXT, parameters=10**9), Device("openvino", "CPU")), False),
        (cell(replace(TEXT, parameters=10**10)), False),
        (cell(replace(TEXT, parameters=10**10), kind=Weights.TINY), True),
        (cell(replace(TEXT, parameters=None)), True),
    ],
)
def test_what_fits_into_8_gib(one: Cell, fits: bool) -> None:
    assert (too_large(one, 8 * 2**30) == "") is fits
