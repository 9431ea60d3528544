"""The scheduler against xdist's protocol: what is dealt to whom, and what becomes of a dead worker's tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_hfaccel.plugin.collection import read_id
from pytest_hfaccel.plugin.processes.scheduling import ModelScheduling, group_of

CHECKS = ("forward", "parity", "memory")
TESTS = [
    *(f"a.py::TestA::test_{check}[{model}-cpu-fp32]" for model in ("gpt2", "bert", "t5") for check in CHECKS),
    "b.py::test_other",
]


class Worker:
    """As much of a worker as a scheduler sees."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []
        self.shutting_down = False
        self.is_connected = True

    def send_runtest_some(self, indices: list[int]) -> None:
        if not self.is_connected:
            raise OSError("cannot send (already closed?)")
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Reports:
    """The hooks that a scheduler calls."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.failed.append(str(report.longrepr))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def scheduler(reports: Reports) -> ModelScheduling:
    config = SimpleNamespace(getvalue=lambda _: ["2*popen"], getoption=lambda _: False, hook=reports)
    return ModelScheduling(config)  # type: ignore[arg-type]


def join(scheduler: ModelScheduling, name: str, tests: list[str] = TESTS) -> Worker:
    worker = Worker(name)
    scheduler.add_node(worker)
    scheduler.add_node_collection(worker, tests)
    if scheduler.collection_is_completed:
        scheduler.schedule()
    return worker


def run_one(scheduler: ModelScheduling, worker: Worker) -> None:
    """Begin a worker's next test, end it and say so."""
    index = worker.sent.pop(0)
    scheduler.pytest_runtest_logstart(TESTS[index])
    scheduler.pytest_runtest_logreport(SimpleNamespace(nodeid=TESTS[index], when="teardown"))  # type: ignore[arg-type]
    scheduler.mark_test_complete(worker, index)


def run_rest(scheduler: ModelScheduling, *workers: Worker) -> list[int]:
    """Have the workers run all that they are sent; return it."""
    done = []
    while any(worker.sent for worker in workers):
        for worker in workers:
            if worker.sent:
                done.append(worker.sent[0])
                run_one(scheduler, worker)
    return sorted(done)


def test_a_model_stays_in_one_worker_and_every_test_is_dealt_once(scheduler: ModelScheduling) -> None:
    first = join(scheduler, "gw0")
    assert not first.sent  # the other has not collected yet
    second = join(scheduler, "gw1")
    assert (first.sent, second.sent) == ([0, 1, 2], [3, 4, 5])
    assert run_rest(scheduler, first, second) == list(range(10))
    assert scheduler.tests_finished
    assert first.shutting_down
    assert second.shutting_down


def test_two_deaths_while_a_worker_starts_lose_nothing(scheduler: ModelScheduling) -> None:
    first, second = join(scheduler, "gw0"), join(scheduler, "gw1")
    first.is_connected = False
    assert scheduler.remove_node(first) is None  # it had begun nothing
    clone = Worker("gw2")
    scheduler.add_node(clone)  # not collected yet
    assert scheduler.remove_node(second) is None
    assert not clone.sent
    other = join(scheduler, "gw3")
    scheduler.add_node_collection(clone, TESTS)
    scheduler.schedule()
    assert run_rest(scheduler, clone, other) == list(range(10))
    assert scheduler.tests_finished


def test_a_worker_that_is_gone_when_it_is_sent_tests_loses_none(scheduler: ModelScheduling) -> None:
    first = Worker("gw0")
    first.is_connected = False
    scheduler.add_node(first)
    scheduler.add_node_collection(first, TESTS)
    second = join(scheduler, "gw1")
    assert not scheduler.tests_finished
    assert scheduler.remove_node(first) is None
    assert run_rest(scheduler, second) == list(range(10))


def test_the_cell_a_worker_died_in_is_given_up_and_no_other(scheduler: ModelScheduling) -> None:
    first, second = join(scheduler, "gw0"), join(scheduler, "gw1")
    scheduler.pytest_runtest_logstart(TESTS[0])
    assert scheduler.remove_node(first) == TESTS[0]
    assert scheduler.not_run_after == {TESTS[0]: TESTS[1:3]}
    assert run_rest(scheduler, second) == list(range(3, 10))


def test_a_test_that_had_ended_is_not_what_a_worker_died_of(scheduler: ModelScheduling) -> None:
    first, second = join(scheduler, "gw0"), join(scheduler, "gw1")
    scheduler.pytest_runtest_logstart(TESTS[0])
    scheduler.pytest_runtest_logreport(SimpleNamespace(nodeid=TESTS[0], when="teardown"))  # type: ignore[arg-type]
    assert scheduler.remove_node(first) is None  # before it could say that it is done with it
    assert run_rest(scheduler, second) == list(range(1, 10))


def test_a_test_that_kills_workers_before_it_begins_is_found_out(scheduler: ModelScheduling) -> None:
    first, _ = join(scheduler, "gw0"), join(scheduler, "gw1")
    assert scheduler.remove_node(first) is None
    again = join(scheduler, "gw2")
    assert again.sent[0] == 0
    assert scheduler.remove_node(again) == TESTS[0]


def test_a_worker_that_ends_by_itself_died_of_nothing(scheduler: ModelScheduling) -> None:
    first, second = join(scheduler, "gw0"), join(scheduler, "gw1")
    scheduler.pytest_runtest_logstart(TESTS[0])
    first.workeroutput = {}  # type: ignore[attr-defined]
    assert scheduler.remove_node(first) is None
    assert run_rest(scheduler, second) == list(range(10))


def test_a_worker_that_collects_something_else_fails_the_run_and_gets_no_tests(
    scheduler: ModelScheduling, reports: Reports
) -> None:
    first = join(scheduler, "gw0")
    other = join(scheduler, "gw1", TESTS[1:])
    assert other.shutting_down
    assert not other.sent
    (difference,) = reports.failed
    assert TESTS[0] in difference
    assert run_rest(scheduler, first) == list(range(10))


def test_more_workers_than_groups(scheduler: ModelScheduling) -> None:
    workers = [join(scheduler, name, TESTS[:3]) for name in ("gw0", "gw1")]
    assert [worker.sent for worker in workers] == [[0, 1, 2], []]
    assert workers[1].shutting_down


def test_nothing_collected(scheduler: ModelScheduling) -> None:
    workers = [join(scheduler, name, []) for name in ("gw0", "gw1")]
    assert scheduler.tests_finished
    assert all(worker.shutting_down for worker in workers)


@pytest.mark.parametrize(
    ("parameter", "cell", "model"),
    [
        ("gpt2-cpu-fp32", "gpt2-cpu-fp32", "gpt2"),
        ("gpt2-cpu-fp32-b8-s128", "gpt2-cpu-fp32", "gpt2"),
        ("vit-b16-cpu-fp32-b8", "vit-b16-cpu-fp32", "vit-b16"),
        ("vit-b16", "vit-b16", "vit-b16"),
    ],
)
def test_the_parts_of_an_id(parameter: str, cell: str, model: str) -> None:
    assert read_id(parameter) == (cell, model)


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("a.py::TestA::test_parity[gpt2-cuda0-fp16]", "gpt2"),
        ("a.py::TestA::test_parity[openai--whisper-tiny-openvinogpu.0-fp32]", "openai--whisper-tiny"),
        ("a.py::TestA::test_resolves[gpt2]", "gpt2"),
        ("a.py::TestA::test_performance[gpt2-cpu-fp32-b8-s128]", "gpt2"),
        ("a.py::TestA::test_performance[vit-b16-openvinocpu-int8-b8]", "vit-b16"),
        ("a.py::test_other", "a.py::test_other"),
    ],
)
def test_a_model_is_a_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group
