"""How pytest-xdist deals tests to workers: a model's cells stay together, so that one worker keeps its lease.

xdist's own schedulers lose tests when workers die (seen in 3.8.0). `LoadScopeScheduling` hands a group to a worker that
has not collected yet and runs into a `KeyError`, which `DSession.worker_errordown` takes for "it had no tests"; a
message to a worker that has just died is an internal error. And `--dist loadgroup` rewrites node ids, which pytest
9.2 no longer lets it do: it silently deals every test on its own. So this is a scheduler of our own, written against
xdist's protocol (`xdist.scheduler.protocol.Scheduling`); it reads the group out of the test's id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from xdist.report import report_collection_diff
from xdist.scheduler import LoadScheduling
from xdist.workermanage import parse_tx_spec_config

from pytest_hfaccel.plugin.collection import read_id

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.processes.placement import GroupOrder

_KNOWN_AHEAD = 2
"""A worker starts a test when it knows the next one, or that there is none: with fewer than these it waits."""


class SchedulingByContent:
    """xdist's own default for a run without model classes, `ModelScheduling` for one with: known after collection.

    Args:
        config: pytest's configuration.
        log: xdist's logger.
        has_models: Called when the first worker has collected: whether it has tests of model classes.
        order: Called then, if it has: the order of the groups.
    """

    def __init__(
        self, config: pytest.Config, log: Any, has_models: Callable[[], bool], order: Callable[[], GroupOrder]
    ) -> None:
        self._config = config
        self._scheduling: Any = LoadScheduling(config, log)
        self._has_models = has_models
        self._order = order
        self._is_decided = False

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Note what a worker has collected."""
        if not self._is_decided and self._has_models():
            nodes = self._scheduling.nodes
            self._scheduling = ModelScheduling(self._config, self._order())
            self._config.pluginmanager.register(self._scheduling, "hfaccel-scheduler")
            for known in nodes:
                self._scheduling.add_node(known)
        self._is_decided = True
        self._scheduling.add_node_collection(node, collection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduling, name)


@dataclass
class _Worker:
    """What the scheduler knows about one living worker.

    Attributes:
        has_collected: Whether its collection has arrived.
        takes_tests: Whether tests can be sent to it: it collected what the others did, and its connection stands.
        tests: The unfinished tests that it was sent, by index, in the order in which it runs them.
    """

    has_collected: bool = False
    takes_tests: bool = False
    tests: list[int] = field(default_factory=list)


class ModelScheduling:
    """Groups by model; any other test is a separate group.

    It is a plugin of the controller, too: by what pytest reports it knows which tests have begun and ended.

    Args:
        config: The controller's configuration.
        order: The order of the groups; largest first when not given.
    """

    def __init__(self, config: pytest.Config, order: GroupOrder | None = None) -> None:
        self._config = config
        self._order = order
        self._expected_workers = len(parse_tx_spec_config(config))
        self._workers: dict[Any, _Worker] = {}
        self._tests: list[str] | None = None
        self._queue: deque[list[int]] = deque()
        self._is_dealing = False
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._next_at_a_death: set[int] = set()
        self.not_run_after: dict[str, list[str]] = {}
        """By test that a worker died of: the tests of its cell that are therefore not run."""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a worker has begun a test."""
        self._begun.add(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test has ended, which a worker may not live to say."""
        if report.when == "teardown":
            self._ended.add(report.nodeid)

    @property
    def nodes(self) -> list[Any]:
        """The living workers."""
        return list(self._workers)

    @property
    def collection_is_completed(self) -> bool:
        """Whether tests can be dealt: at the start, when as many workers as were asked for have collected."""
        return self._is_dealing or sum(w.has_collected for w in self._workers.values()) >= self._expected_workers

    @property
    def tests_finished(self) -> bool:
        """Whether no worker will be sent another test."""
        nearly = all(len(worker.tests) < _KNOWN_AHEAD for worker in self._workers.values())
        return self._is_dealing and not self._queue and nearly

    @property
    def has_pending(self) -> bool:
        """Whether any test is left to deal or to finish."""
        return bool(self._queue) or any(worker.tests for worker in self._workers.values())

    def add_node(self, node: Any) -> None:
        """Add a worker that has started and will collect next."""
        self._workers[node] = _Worker()

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Note what a worker has collected; one that collected something else fails the run and gets no tests."""
        worker = self._workers[node]
        worker.has_collected = True
        if self._tests is None:
            self._tests = list(collection)
        if list(collection) == self._tests:
            worker.takes_tests = True
            return
        difference = report_collection_diff(self._tests, collection, "the first worker", node.gateway.id)
        report = pytest.CollectReport(nodeid=node.gateway.id, outcome="failed", longrepr=difference, result=[])
        self._config.hook.pytest_collectreport(report=report)
        node.shutdown()

    def schedule(self) -> None:
        """Deal tests to the workers that have collected."""
        if not self._is_dealing:
            self._is_dealing = True
            groups = self._groups(range(len(self._tests or ())))
            if self._config.getoption("loadscopereorder"):
                if self._order is not None:
                    groups = self._order.arrange(groups, self._tests or (), self._expected_workers)
                else:
                    groups.sort(key=len, reverse=True)
            self._queue.extend(groups)
        self._deal()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:  # noqa: ARG002 - xdist's
        """Note that a worker has finished a test, teardown and all."""
        self._workers[node].tests.remove(item_index)
        self._deal()

    def remove_node(self, node: Any) -> str | None:
        """Remove a worker that has ended or died; tests that it had not begun go to others.

        When it died of a test, the other tests of that test's cell are not run (see `not_run_after`): they would need
        what it died of, and cost another worker each.

        Returns:
            The test the worker died of; `None` when it died between tests, or was asked to end.

        Raises:
            KeyError: It has been removed before; xdist expects that.
        """
        worker = self._workers.pop(node)
        tests = self._tests or []
        left = [index for index in worker.tests if tests[index] not in self._ended]
        died_of = None
        if left and not hasattr(node, "workeroutput"):  # which only a worker that ended by itself leaves
            first = left[0]
            # Next in line twice: it dies before pytest can say that the test has begun.
            if tests[first] in self._begun or first in self._next_at_a_death:
                died_of = tests[first]
                cell = [index for index in left[1:] if _cell_of(tests[index]) == _cell_of(died_of)]
                self.not_run_after[died_of] = [tests[index] for index in cell]
                left = [index for index in left[1:] if index not in cell]
            self._next_at_a_death.add(first)
        self._queue.extendleft(reversed(self._groups(left)))
        self._deal()
        return died_of

    def mark_test_pending(self, item: str) -> None:
        """Refuse: xdist asks for it in `--dist each` and `load` only."""
        raise NotImplementedError(item)

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        """Refuse: no test is taken from a living worker."""
        raise NotImplementedError(node, indices)

    def _groups(self, indices: Iterable[int]) -> list[list[int]]:
        tests = self._tests or []
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(group_of(tests[index]), []).append(index)
        return list(groups.values())

    def _deal(self) -> None:
        """Give a group to each worker that would wait, in turns; shut down those for which none is left."""
        if not self._is_dealing:
            return
        while self._queue and (waiting := self._waiting()):
            for node in waiting[: len(self._queue)]:
                self._send(node)
        if not self._queue:
            for node in self._waiting():
                node.shutdown()

    def _waiting(self) -> list[Any]:
        return [
            node
            for node, worker in self._workers.items()
            if worker.takes_tests and len(worker.tests) < _KNOWN_AHEAD and not node.shutting_down
        ]

    def _send(self, node: Any) -> None:
        group = self._queue.popleft()
        try:
            node.send_runtest_some(group)
        except OSError:  # it has just died; xdist is going to say so
            self._workers[node].takes_tests = False
            self._queue.appendleft(group)
        else:
            self._workers[node].tests += group


def group_of(nodeid: str) -> str:
    """Return the model's slug for a test of a model class, else the node id itself."""
    parameter = nodeid.partition("[")[2].rstrip("]")
    return read_id(parameter)[1] if parameter else nodeid


def _cell_of(nodeid: str) -> tuple[str, str]:
    """Return what two tests of one cell, in one module, have in common."""
    parameter = nodeid.partition("[")[2].rstrip("]")
    return (nodeid.partition("::")[0], read_id(parameter)[0]) if parameter else (nodeid, "")
