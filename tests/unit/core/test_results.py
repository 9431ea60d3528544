from __future__ import annotations

import json

import pytest

from pytest_hfaccel.core.results import NOT_REACHED, CellResult, CheckOutcome, Stage, Status, headline


def result(*statuses: Status, incomplete: bool = False) -> CellResult:
    checks = [CheckOutcome(f"check{i}", status, Stage.RUN, f"reason{i}") for i, status in enumerate(statuses)]
    return CellResult("a-cpu-fp32", "a", "A", "m", "t", "cpu", "fp32", "tiny", checks=checks, incomplete=incomplete)


def test_json_in_both_directions() -> None:
    original = result(Status.PASSED, Status.FAILED)
    assert CellResult.from_json(json.loads(json.dumps(original.to_json()))) == original


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        ((), Status.SKIPPED),
        ((Status.PASSED, Status.SKIPPED), Status.PASSED),
        ((Status.PASSED, Status.XFAILED), Status.XFAILED),
        ((Status.XPASSED, Status.FAILED), Status.FAILED),
        ((Status.FAILED, Status.ERROR, Status.CRASHED), Status.CRASHED),
        ((Status.SKIPPED, Status.UNAVAILABLE), Status.UNAVAILABLE),
    ],
)
def test_a_cell_has_its_worst_status(statuses: tuple[Status, ...], worst: Status) -> None:
    assert result(*statuses).status == worst


def test_reason_and_stage_are_those_of_the_check_that_decided() -> None:
    found = result(Status.PASSED, Status.FAILED)
    assert (found.stage, found.reason) == (Stage.RUN, "reason1")


def test_an_incomplete_cell_is_not_a_passed_one() -> None:
    assert result(Status.PASSED, incomplete=True).status == Status.INCOMPLETE
    assert result(Status.FAILED, incomplete=True).status == Status.FAILED


def test_every_status_has_a_rank() -> None:
    assert all(result(status).status == status for status in Status)


@pytest.mark.parametrize(
    ("status", "stage", "cause", "device", "first"),
    [
        (Status.FAILED, Stage.COMPARE, "numerics", "cuda:0", "numerics: parity failed at stage compare: why"),
        (Status.FAILED, Stage.COMPARE, "", "openvino:CPU", "probably exporter or runtime: parity failed at"),
        (Status.FAILED, Stage.COMPARE, "", "cuda:0", "probably runtime or driver: parity failed at"),
        (Status.FAILED, Stage.COMPARE, "", "cpu", "probably transformers: parity failed at"),
        (Status.ERROR, Stage.CONVERT, "", "openvino:CPU", "probably exporter: parity error at"),
        (Status.ERROR, Stage.COMPILE, "", "openvino:CPU", "probably runtime: parity error at"),
        (Status.ERROR, Stage.LOAD, "factory", "cpu", "factory: parity error at"),
        (Status.ERROR, Stage.LOAD, "", "cpu", "error at stage load"),
        (Status.UNAVAILABLE, Stage.LOAD, "runtime", "cuda:0", "unavailable at stage load"),
        (Status.INFRA_ERROR, Stage.RUN, "", "cuda:0", "infra_error at stage run"),
    ],
)
def test_the_first_line_of_a_failure(status: Status, stage: Stage, cause: str, device: str, first: str) -> None:
    assert headline(CheckOutcome("parity", status, stage, "why", cause=cause), device).startswith(first)


def test_what_refers_to_another_failure_blames_nobody() -> None:
    outcome = CheckOutcome("parity", Status.ERROR, Stage.CONVERT, f"{NOT_REACHED} (error, see 'forward')")
    assert headline(outcome, "openvino:CPU").startswith("error at stage convert")
