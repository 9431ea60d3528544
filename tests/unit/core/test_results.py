from __future__ import annotations

import json

import pytest

from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status


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
