"""What happens in a run, as plain data, and the one place where the outcomes of a cell become its record.

    RunStarted -> (CellStarted -> (CheckStarted -> CheckFinished)... -> CellFinished)...
        -> CheckExplained... -> RunFinished

Code that runs checks (the plugin, `hfaccel bench`, `TestBert(...)`) notifies an `EventStream`, which calls its
consumers: journal, reports, database, terminal, and those that a hook adds. The events of several cells mix where
workers run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Ended, Status


@dataclass(frozen=True)
class RunStarted:
    """A run begins.

    Attributes:
        header: Plain JSON about it: `started`, `command`, `machine`, `options`, `devices`, ...
    """

    header: Mapping[str, Any]


@dataclass(frozen=True)
class CellStarted:
    """The first check of a cell is about to run.

    Attributes:
        facts: Fields of its `CellResult` that are known before anything runs.
    """

    facts: Mapping[str, Any]


@dataclass(frozen=True)
class CheckStarted:
    """A test is about to run: one check of a cell, or a test that belongs to no model class.

    Attributes:
        test: Its node id.
        check: The check's name; empty for a test of no model class.
        facts: As in `CellStarted`; empty for a test of no model class.
        running: Other tests that run at the moment, in other workers.
    """

    test: str
    check: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckFinished:
    """A check of a cell has an outcome. Workers send it to the controller as JSON.

    Attributes:
        facts: Fields of its `CellResult` as far as they are known: identity, placement, timings.
        outcome: The outcome.
        selected: How many tests the cell has in this run.
        test: The test's node id: a cell may have several outcomes of one check.
    """

    facts: Mapping[str, Any]
    outcome: CheckOutcome
    selected: int = 1
    test: str = ""

    @property
    def key(self) -> CellKey:
        """Module and cell."""
        return (self.facts["module"], self.facts["cell"])

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form, without the node id, which the test's report has."""
        return {"facts": dict(self.facts), "outcome": self.outcome.to_json(), "selected": self.selected}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], test: str = "") -> CheckFinished:
        """Rebuild the event from what `to_json` returned."""
        return cls(data["facts"], CheckOutcome.from_json(data["outcome"]), data["selected"], test)


@dataclass(frozen=True)
class CellFinished:
    """All selected checks of a cell have run, or the run has ended before (`result.incomplete`).

    Attributes:
        result: Its record.
        durations: Seconds by node id of its tests, setup and teardown included, where they are known.
    """

    result: CellResult
    durations: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckExplained:
    """Experiments have told whose doing a failure is, after the last cell of the run (`--hf-explain`).

    Attributes:
        result: The cell's record, which has the explanation.
        check: The check that failed.
        explanation: What its measures have as `explanation`: `cause`, `because`, `first_divergence`, `experiments`.
    """

    result: CellResult
    check: str
    explanation: Mapping[str, Any]


@dataclass(frozen=True)
class RunFinished:
    """The run is over.

    Attributes:
        header: That of `RunStarted`, and what is known now: `finished`, `commit`, `pool`.
        results: The records of all cells, in the order of their first outcome.
        ended: How the run ended.
    """

    header: Mapping[str, Any]
    results: list[CellResult]
    ended: Ended


Event = RunStarted | CellStarted | CheckStarted | CheckFinished | CellFinished | CheckExplained | RunFinished
Consumer = Callable[[Event], object]


class RecordBuilder:
    """Makes records of outcomes, one per module and cell: modules that test the same model have one each."""

    def __init__(self) -> None:
        self.records: dict[CellKey, CellResult] = {}
        """The records so far, finished or not, in the order of their first outcome."""
        self._outcomes: dict[tuple[CellKey, str], CheckOutcome] = {}

    def add(self, event: CheckFinished) -> CellResult:
        """Add an outcome to its cell's record; a failure after a good outcome of the same test replaces it."""
        record = self.update(event.facts)
        outcome, test = event.outcome, (event.key, event.test)
        earlier = self._outcomes.get(test) if event.test else None
        if earlier is None:
            self._outcomes[test] = outcome
            record.checks.append(outcome)
        elif outcome.status.is_bad and not earlier.status.is_bad:
            earlier.status, earlier.stage, earlier.reason = outcome.status, outcome.stage, outcome.reason
        record.incomplete = record.incomplete or outcome.status == Status.INCOMPLETE
        return record

    def status_of(self, event: CheckFinished) -> Status | None:
        """The status that the record has for a test; `None` if it has none yet."""
        known = self._outcomes.get((event.key, event.test)) if event.test else None
        return known.status if known is not None else None

    def update(self, facts: Mapping[str, Any]) -> CellResult:
        """Set fields of a cell's record, except for empty values; make the record if there is none."""
        key = (facts["module"], facts["cell"])
        if key not in self.records:
            self.records[key] = CellResult(**facts)
        record = self.records[key]
        for name, value in facts.items():
            if value:
                setattr(record, name, value)
        return record


def add_explanation(record: CellResult, check: str, explanation: Mapping[str, Any]) -> None:
    """Put an explanation into the outcome of a check that failed: its cause and, among its measures, what tells it."""
    outcome = next((each for each in record.checks if each.name == check and each.status.is_bad), None)
    if outcome is not None:
        outcome.measures["explanation"] = dict(explanation)
        outcome.cause = explanation["cause"] or outcome.cause


class EventStream:
    """The events of one run, on their way to its consumers. It lives in the one process that writes.

    A consumer that raises gets no further events; what it raised is kept in `problems`. Only what it raises at
    `RunStarted` ends the run: nothing has run by then.

    Args:
        header: Returns what `RunStarted` says.
        consumers: Called with each event, in this order.
    """

    def __init__(self, header: Callable[[], Mapping[str, Any]], consumers: Iterable[Consumer] = ()) -> None:
        self.consumers = list(consumers)
        self.problems: list[str] = []
        self._make_header = header
        self._header: Mapping[str, Any] | None = None
        self._builder = RecordBuilder()
        self._missing: dict[CellKey, int] = {}
        self._started_cells: set[CellKey] = set()
        self._ended_tests: set[str] = set()
        self._durations: dict[str, float] = {}
        self._tests: dict[CellKey, dict[str, None]] = {}
        self._running: list[str] = []

    @property
    def results(self) -> list[CellResult]:
        """The records so far, finished or not."""
        return list(self._builder.records.values())

    def start(self) -> None:
        """Begin the run, unless it has begun; what a consumer raises is raised."""
        if self._header is None:
            self._header = self._make_header()
            for consumer in self.consumers:
                consumer(RunStarted(self._header))

    def start_check(self, test: str, check: str = "", facts: Mapping[str, Any] | None = None) -> None:
        """Note that a test is about to run; tell the consumers if the run has begun."""
        if self._header is not None:
            if facts:
                self._start_cell((facts["module"], facts["cell"]), facts)
            self._emit(CheckStarted(test, check, facts or {}, tuple(self._running)))
        self._running.append(test)

    def add_duration(self, test: str, seconds: float) -> None:
        """Note how long a phase of a test took; before `finish_check` tells that the test has ended."""
        self._durations[test] = self._durations.get(test, 0.0) + seconds

    def stop_test(self, test: str) -> None:
        """Note that a test is over."""
        if test in self._running:
            self._running.remove(test)

    def finish_check(self, event: CheckFinished, *, is_over: bool = True) -> None:
        """Add an outcome; the cell is finished when this ends the last of its selected tests.

        Args:
            event: The outcome.
            is_over: Whether the test has ended, teardown included: freeing a model can fail, too.
        """
        if self._header is None:
            self._header = self._make_header()
            self._emit(RunStarted(self._header))
        self._start_cell(event.key, event.facts)
        before = self._builder.status_of(event)
        record = self._builder.add(event)
        if event.test:
            self._tests.setdefault(event.key, {})[event.test] = None
        if self._builder.status_of(event) != before:  # the report of a teardown repeats the outcome of the call
            self._emit(event)
        if is_over and event.test not in self._ended_tests:
            self._ended_tests.add(event.test)
            self._missing[event.key] = self._missing.get(event.key, event.selected) - 1
            if self._missing[event.key] == 0:
                self._emit(CellFinished(record, self._durations_of(event.key)))

    def explain(self, key: CellKey, check: str, explanation: Mapping[str, Any]) -> None:
        """Add what experiments have told of a failure to its outcome; the verdict stays."""
        record = self._builder.records[key]
        add_explanation(record, check, explanation)
        self._emit(CheckExplained(record, check, explanation))

    def finish(self, ended: Ended, facts: Mapping[str, Any]) -> None:
        """End the run: cells that did not finish are `incomplete`; a run that never began has no end.

        Args:
            ended: How the run ended.
            facts: Further fields of the header, now that the run is over.
        """
        for key, record in self._builder.records.items():
            if self._missing.get(key) != 0:
                record.incomplete = True
                self._missing[key] = 0
                self._emit(CellFinished(record, self._durations_of(key)))
        if self._header is not None:
            self._emit(RunFinished({**self._header, **facts}, self.results, ended))

    def _start_cell(self, key: CellKey, facts: Mapping[str, Any]) -> None:
        if key not in self._started_cells:
            self._started_cells.add(key)
            self._emit(CellStarted(facts))

    def _durations_of(self, key: CellKey) -> dict[str, float]:
        tests = self._tests.get(key, {})
        return {test: round(self._durations[test], 6) for test in tests if test in self._durations}

    def _emit(self, event: Event) -> None:
        for consumer in list(self.consumers):
            try:
                consumer(event)
            except Exception as error:
                self.consumers.remove(consumer)
                name = getattr(consumer, "__qualname__", type(consumer).__qualname__)
                self.problems.append(f"{name} failed at {type(event).__name__}: {type(error).__name__}: {error}")
