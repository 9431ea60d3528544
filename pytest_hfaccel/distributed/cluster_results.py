"""The finished cells of a run on a cluster -> one journal and the reports of a serial run, by the same code."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.events import CellFinished, Consumer, Event, RunFinished, RunStarted
from pytest_hfaccel.core.results import CellKey, CellResult, CheckOutcome, Ended, Stage, Status
from pytest_hfaccel.distributed.cluster import Cluster, Node
from pytest_hfaccel.distributed.selection import SelectedCell, Selection
from pytest_hfaccel.reporting.reports import speaks_against
from pytest_hfaccel.reporting.run_facts import git_commit
from pytest_hfaccel.reporting.run_reports import RunReports
from pytest_hfaccel.reporting.runs import RunFolder


class ClusterResults:
    """Collects the records of the selected cells, each once, and tells the consumers.

    Args:
        selection: What the run has selected.
        cluster: The nodes it starts with.
        engine: The name of the engine, e.g. `ray`.
        command: The command line.
        consumers: Called with `RunStarted`, `CellFinished` and `RunFinished`, after the reports.

    Raises:
        ConfigError: The folder of the run cannot be written.
    """

    def __init__(
        self, selection: Selection, cluster: Cluster, *, engine: str, command: str, consumers: Iterable[Consumer] = ()
    ) -> None:
        self.selection = selection
        self.cells: dict[CellKey, CellResult] = {}
        """The records so far."""
        self.node_of: dict[CellKey, str] = {}
        """The name of the node that ran a cell."""
        self.notes: list[str] = []
        """What went wrong and is no cell's fault: lost nodes, what could not be written."""
        self.codes: set[int] = set()
        """The exit codes of the pytest processes."""
        self._nodes: dict[str, Node] = {}
        self._pool: list[Any] = []
        self._wanted = {cell.key: cell for cell in selection.cells}
        run = selection.run
        self.reports = RunReports(self._make_folder, keep_runs=int(run["keep_runs"]), root=run["root"])
        self._consumers: list[Consumer] = [self.reports, *consumers]
        self._mark, self._began = time.monotonic(), datetime.now(UTC)
        self.header = {
            **run["header"],
            "started": self._began.isoformat(timespec="seconds"),
            "command": command,
            "process": os.getpid(),
            "workers": len(cluster.nodes),
            "cluster": {"engine": engine},
        }
        self.finished_header: Mapping[str, Any] = self.header
        """The header with what is known at the end."""
        self.add_nodes(cluster.nodes)
        self.reports(RunStarted(self.header))  # what it raises ends the run, before anything has run
        for consumer in self._consumers[1:]:
            self._call(consumer, RunStarted(self.header))

    def _make_folder(self, header: Mapping[str, Any]) -> RunFolder:
        run = self.selection.run
        return RunFolder(Path(run["reports"]), header, mode=int(run["mode"], 8), root=run["root"])

    def add_nodes(self, nodes: Iterable[Node]) -> None:
        """Note nodes that take part in the run."""
        self._nodes |= {node.name: node for node in nodes}

    def missing(self, cells: Iterable[SelectedCell]) -> list[SelectedCell]:
        """Return those of some cells that have no record."""
        return [cell for cell in cells if cell.key not in self.cells]

    def add(self, data: Mapping[str, Any], durations: Mapping[str, float], node: str) -> None:
        """Add the record of a finished cell, unless there is one.

        Args:
            data: The record, as JSON.
            durations: Seconds by node id of its tests.
            node: The name of the node that ran it.
        """
        result = CellResult.from_json(dict(data))
        if result.incomplete or result.key in self.cells or result.key not in self._wanted:
            return
        result.from_run = ""  # a process that was resumed on its node took it over from itself
        self.node_of[result.key] = node
        self._finish(result, durations)

    def add_outcome(self, cell: SelectedCell, status: Status, stage: Stage, reason: str) -> None:
        """Record that the tests of a cell could not be run."""
        result = CellResult(**cell.facts, implementation="unavailable")
        result.checks = [CheckOutcome(name, status, stage, reason) for name in cell.names.values()]
        self._finish(result, {})

    def _finish(self, result: CellResult, durations: Mapping[str, float]) -> None:
        self.cells[result.key] = result
        self._emit(CellFinished(result, durations))

    def add_end(self, code: int, pool: Iterable[Any]) -> None:
        """Note how a pytest process ended."""
        self.codes.add(code)
        self._pool += pool

    def finish(self, ended: Ended) -> None:
        """Write the reports."""
        cells = Counter(self.node_of.values())
        nodes = [
            {
                "name": node.name,
                "devices": node.devices(),
                "resources": {
                    name: node.resources[name] for name in ("CPU", "GPU", *node.declared) if name in node.resources
                },
                "cells": cells[node.name],
                "machine": node.machine,
            }
            for node in self._nodes.values()
        ]
        finished = datetime.fromtimestamp(self._began.timestamp() + time.monotonic() - self._mark, UTC)
        facts = {
            "finished": finished.isoformat(timespec="seconds"),
            "pool": self._pool,
            "commit": git_commit(Path.cwd()),
            "cluster": {**self.header["cluster"], "nodes": nodes, "notes": self.notes},
        }
        ordered = [self.cells[key] for key in self._wanted if key in self.cells]
        self.finished_header = {**self.header, **facts}
        self._emit(RunFinished(self.finished_header, ordered, ended))
        if self.reports.written:
            self.notes += self.reports.written.problems

    def by_machine(self) -> list[tuple[Mapping[str, Any], list[CellResult]]]:
        """Return the cells that ran, by the facts of the machine they ran on."""
        found: dict[str, list[CellResult]] = {}
        for key, node in self.node_of.items():
            found.setdefault(node, []).append(self.cells[key])
        return [(self._nodes[node].machine, results) for node, results in found.items()]

    def exit_code(self, ended: Ended) -> int:
        """Return what pytest would have returned for the whole run.

        0: everything passed; 1: something failed, or no cell could be tested; 2: the run was interrupted; 3: reports
        could not be written, or a pytest process had an internal error.
        """
        written = self.reports.written
        if ended == Ended.INTERRUPTED:
            return 2
        if (written is not None and not written.is_complete) or 3 in self.codes:
            return 3
        untested = bool(self.cells) and all(result.status == Status.UNAVAILABLE for result in self.cells.values())
        if untested or any(map(speaks_against, self.cells.values())) or self.codes - {0, 5}:
            return 1
        return 0

    def _emit(self, event: Event) -> None:
        for consumer in list(self._consumers):
            self._call(consumer, event)

    def _call(self, consumer: Callable[[Event], object], event: Event) -> None:
        try:
            consumer(event)
        except Exception as error:
            self._consumers.remove(consumer)
            self.notes.append(f"{type(consumer).__name__} failed: {type(error).__name__}: {error}")
