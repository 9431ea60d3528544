"""The events of a run, and how outcomes become records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_hfaccel.core.events import (
    CellFinished,
    CellStarted,
    CheckFinished,
    CheckStarted,
    Event,
    EventStream,
    RecordBuilder,
    RunFinished,
    RunStarted,
)
from pytest_hfaccel.core.results import CheckOutcome, Ended, Stage, Status

FACTS: dict[str, Any] = {
    "cell": "a-cpu-fp32",
    "model": "a",
    "architecture": "A",
    "module": "first",
    "task": "fill-mask",
    "device": "cpu",
    "dtype": "fp32",
    "weights": "tiny",
}


def finished(name: str, status: Status = Status.PASSED, **facts: Any) -> CheckFinished:
    return CheckFinished({**FACTS, **facts}, CheckOutcome(name, status, Stage.RUN), selected=2, test=f"t::{name}")


def test_two_modules_that_test_one_cell_have_a_record_each() -> None:
    builder = RecordBuilder()
    for module in ("first", "second"):
        builder.add(finished("parity", module=module))
    assert list(builder.records) == [("first", "a-cpu-fp32"), ("second", "a-cpu-fp32")]
    assert all(len(record.checks) == 1 for record in builder.records.values())


def test_later_facts_fill_a_record_and_empty_ones_leave_it() -> None:
    builder = RecordBuilder()
    builder.add(finished("placement", timings={"load": 1.0}))
    record = builder.add(finished("parity", timings={}, placement={"bytes": 1}))
    assert (record.timings, record.placement) == ({"load": 1.0}, {"bytes": 1})


def test_what_goes_wrong_after_a_good_outcome_takes_its_place() -> None:
    builder = RecordBuilder()
    builder.add(finished("parity"))
    record = builder.add(finished("parity", Status.ERROR))
    assert [check.status for check in record.checks] == [Status.ERROR]
    builder.add(finished("parity", Status.PASSED))
    assert [check.status for check in record.checks] == [Status.ERROR]


def test_the_event_that_crosses_processes_survives_json() -> None:
    event = finished("parity", Status.FAILED)
    assert CheckFinished.from_json(json.loads(json.dumps(event.to_json())), event.test) == event


def test_the_order_of_events() -> None:
    events: list[Event] = []
    stream = EventStream(lambda: {"started": "now"}, [events.append])
    stream.start()
    for name in ("placement", "parity"):
        stream.start_check(f"t::{name}", name, FACTS)
        stream.finish_check(finished(name), is_over=False)
        stream.finish_check(finished(name))  # the report of the teardown
        stream.stop_test(f"t::{name}")
    stream.finish(Ended.FINISHED, {"finished": "later"})
    check = [CheckStarted, CheckFinished]
    assert [type(event) for event in events] == [RunStarted, CellStarted, *check, *check, CellFinished, RunFinished]
    last = events[-1]
    assert isinstance(last, RunFinished)
    assert last.header == {"started": "now", "finished": "later"}
    assert not last.results[0].incomplete


def test_a_cell_whose_tests_did_not_all_run_is_incomplete() -> None:
    events: list[Event] = []
    stream = EventStream(dict, [events.append])
    stream.start()
    stream.finish_check(finished("placement"))
    stream.finish(Ended.INTERRUPTED, {})
    assert [event.result.status for event in events if isinstance(event, CellFinished)] == [Status.INCOMPLETE]


def test_a_consumer_that_fails_is_dropped_and_the_others_go_on() -> None:
    events: list[Event] = []

    def bad(event: Event) -> None:
        if isinstance(event, CellStarted):
            raise OSError("gone")

    stream = EventStream(dict, [bad, events.append])
    stream.start()
    stream.finish_check(finished("placement"))
    assert [type(event) for event in events] == [RunStarted, CellStarted, CheckFinished]
    assert len(stream.problems) == 1
    assert "OSError: gone" in stream.problems[0]


def test_what_a_consumer_raises_at_the_start_ends_the_run() -> None:
    def bad(_event: Event) -> None:
        raise OSError("no place to write to")

    with pytest.raises(OSError, match="no place"):
        EventStream(dict, [bad]).start()
