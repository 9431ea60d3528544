"""Model classes -> test items: which cells a test runs on, and what a run has collected.

xdist sends its controller node ids and no more. A worker writes the rest (`CollectedTests`) into a directory that the
controller has made for the run; all workers collect the same, so the first one writes for all. A worker on another
machine has no such directory: then the controller knows the node ids only.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hfaccel.core.errors import HfAccelError, format_names
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import CLASS_LEVEL, DTYPES, Cell
from pytest_hfaccel.engine.cell_run import identity, points_of_run
from pytest_hfaccel.engine.model_class import ModelClassTests, make_test
from pytest_hfaccel.plugin.state import CELL_TEST, COLLECTED, SHARD, SHARD_PROBLEM, CellTest, session_of

if TYPE_CHECKING:
    from pytest_hfaccel.engine.session import Session

CELL, POINT = "hf_cell", "hf_measuring_point"
_ID = re.compile(rf"(?P<cell>(?P<model>.+)-[a-z0-9.]+-(?:{'|'.join(DTYPES)}))(?:-b\d+(?:-s\d+)?)?")
"""The id of a test on a cell, perhaps at a point."""


def make_plan(config: pytest.Config) -> None:
    """Make the plan before anything is collected.

    Raises:
        pytest.UsageError: An option has a value that is not allowed.
    """
    session = session_of(config)
    try:
        _ = session.config.explain_seconds
        database = session.config.database_path
        if session.config.database and database is not None:
            from pytest_hfaccel.history.connection import require_database

            place = f"--hf-database (BENCHMARK_DB_PATH) {session.config.database}"
            require_database(database, place, "do without: --hf-database none")
        if session.config.plan or session.config.shard:
            from pytest_hfaccel.plugin.sharding import shard_of

            shard_of(config)
        _ = session.plan
    except HfAccelError as error:
        raise pytest.UsageError(str(error)) from None


def skip_without_cells(collector: pytest.Collector, name: str, obj: object) -> list[pytest.Item] | None:
    """Return nothing to collect for model classes, and tests of their batteries, that have no cells; else `None`.

    Such a test must not be counted as skipped.
    """
    owner = getattr(collector, "obj", None)
    try:
        if isinstance(obj, type) and issubclass(obj, ModelClassTests):
            if not name.startswith("Test") or not getattr(obj, "__test__", True):
                return None
            session = session_of(collector.config)
            if not session.cells_of(obj):
                return []
            from pytest_hfaccel.plugin.fixtures import provide_fixtures

            provide_fixtures(collector, obj)
            _add_tests(obj, session)
            return None
        if isinstance(owner, type) and issubclass(owner, ModelClassTests) and name.startswith("test_"):
            cells = session_of(collector.config).cells_of_check(owner, name.removeprefix("test_"))
            return None if cells else []
    except HfAccelError as error:
        raise collector.CollectError(str(error)) from None
    return None


def _add_tests(model_class: type[ModelClassTests], session: Session) -> None:
    """Give a model class a test for each check that came from a hook, as it has one for each built-in check."""
    for check in session.added_checks:
        if not hasattr(model_class, f"test_{check.name}"):
            setattr(model_class, f"test_{check.name}", make_test(check))


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test of a model class the cells it applies to.

    The parameter has session scope: pytest then keeps the tests of a cell together, also across modules, and the
    cell's lease is taken once.
    """
    model_class = metafunc.cls
    if model_class is None or not issubclass(model_class, ModelClassTests):
        return
    session = session_of(metafunc.config)
    cells = session.cells_of_check(model_class, metafunc.function.__name__.removeprefix("test_"))
    metafunc.parametrize(CELL, cells, ids=[cell.id for cell in cells], indirect=True, scope="session")
    if POINT in metafunc.fixturenames and (session.config.batch_sizes or session.config.seq_lengths):
        # One test per point: pytest-benchmark compares, groups and plots tests, and times each of them once. The
        # parameter has function scope: with that of the session pytest would sort by points, not by cells.
        points = points_of_run([cell.model for cell in cells], session.config)
        metafunc.parametrize(POINT, points, ids=str, scope="function")


def mark_items(items: Sequence[pytest.Item]) -> None:
    """Note on the items of model classes what they run, and mark them with `hf(...)`, for `-m`."""
    of_cell: dict[int, dict[str, str]] = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        cell = parameters.get(CELL)
        if not isinstance(cell, Cell):
            continue
        check = item.originalname.removeprefix("test_")  # type: ignore[attr-defined]
        item.stash[CELL_TEST] = CellTest(cell, check, parameters.get(POINT))
        facts = of_cell.get(id(cell))
        if facts is None:
            of_cell[id(cell)] = facts = {
                "model": cell.model.name,
                "architecture": cell.model.architecture,
                "device": cell.device.kind,
                "dtype": cell.dtype,
                "weights": str(cell.weights.kind),
                "level": "class" if cell.device == CLASS_LEVEL else "cell",
            }
        item.add_marker(pytest.mark.hf(**facts, check=check))


def deselect_shadowed(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of fallback classes where another collected class has the same check on the same cell."""
    if not any(item.cls.fallback for item in items if CELL_TEST in item.stash):  # type: ignore[attr-defined]
        return
    taken, fallback = set(), []
    for item in items:
        test = item.stash.get(CELL_TEST, None)
        if test is not None and item.cls.fallback:  # type: ignore[attr-defined]
            fallback.append((item, (test.cell.id, test.check)))
        elif test is not None:
            taken.add((test.cell.id, test.check))
    shadowed = {item for item, what in fallback if what in taken}
    if shadowed:
        config.hook.pytest_deselected(items=[item for item in items if item in shadowed])
        items[:] = [item for item in items if item not in shadowed]


def finish_collection(session: pytest.Session) -> None:
    """Describe what is collected.

    Raises:
        pytest.UsageError: The user named a model that no class tests.
    """
    collected = collected_tests(session)
    is_worker = hasattr(session.config, "workerinput")  # the controller speaks for its workers
    if not is_worker and collected.usage_error:
        raise pytest.UsageError(collected.usage_error)


def read_id(parameter: str) -> tuple[str, str]:
    """Return the cell's id and the model's slug from the bracketed part of a test's id."""
    found = _ID.fullmatch(parameter)
    return (found["cell"], found["model"]) if found else (parameter, parameter)


_FILE = "collected.json"


@dataclass(frozen=True)
class CollectedTests:
    """The tests of model classes that a run has collected, as plain data.

    Attributes:
        header: The lines that say what runs on what.
        usage_error: What is wrong with what the user asked for; empty when nothing is.
        cells: The identity (`engine.cell_run.identity`) of each cell in each module.
        tests: By node id, the index of the test's cell and the name of its check.
        decide: Returns what decides the outcomes of a cell, by its index; what a worker has written has it in `cells`.
    """

    header: list[str] = field(default_factory=list)
    usage_error: str = ""
    cells: list[dict[str, Any]] = field(default_factory=list)
    tests: dict[str, tuple[int, str]] = field(default_factory=dict)
    decide: Callable[[int], dict[str, str]] | None = None

    def cell(self, index: int) -> dict[str, Any]:
        """Return the identity of a cell, and what decides its outcomes."""
        facts = self.cells[index]
        return facts if self.decide is None else {**facts, "decided_by": self.decide(index)}

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        cells = [self.cell(index) for index in range(len(self.cells))]
        return {"header": self.header, "usage_error": self.usage_error, "cells": cells, "tests": self.tests}

    def cell_and_check(self, nodeid: str) -> tuple[dict[str, Any], str] | None:
        """Return the identity of a test's cell and its check's name; `None` for a test of no model class."""
        if nodeid not in self.tests:
            return None
        index, check = self.tests[nodeid]
        return self.cell(index), check

    def selected(self, nodeid: str) -> int:
        """Return how many tests the cell of a test has."""
        return self._tests_by_cell[self.tests[nodeid][0]]

    @cached_property
    def _tests_by_cell(self) -> Counter[int]:
        return Counter(index for index, _ in self.tests.values())


def collected_tests(session: pytest.Session) -> CollectedTests:
    """Describe the selected tests of a process that has collected; the same object on every call."""
    config = session.config
    if COLLECTED not in config.stash:
        described = _describe(session_of(config), session.items)
        if shard := config.stash.get(SHARD, None):
            described.header.append(f"hfaccel: {shard}")
            described = replace(described, usage_error=config.stash.get(SHARD_PROBLEM, described.usage_error))
        config.stash[COLLECTED] = described
    return config.stash[COLLECTED]


def _describe(session: Session, items: Sequence[pytest.Item]) -> CollectedTests:
    found: dict[tuple[str, str], int] = {}
    known: list[tuple[Cell, type[ModelClassTests]]] = []
    tests: dict[str, tuple[int, str]] = {}
    for item in items:
        test = item.stash.get(CELL_TEST, None)
        if test is None:
            continue
        model_class = item.cls  # type: ignore[attr-defined]
        module = session.module_of(model_class)
        index = found.setdefault((module, test.cell.id), len(found))
        if index == len(known):
            known.append((test.cell, model_class))
        tests[item.nodeid] = (index, test.check)
    cells = [identity(cell, session.module_of(model_class)) for cell, model_class in known]
    header = _header_lines(session, known)
    return CollectedTests(header, session.mistakes(), cells, tests, lambda index: session.decided_by(*known[index]))


def write_collected(directory: Path, collected: CollectedTests) -> None:
    """Write for the controller, unless another worker has."""
    path = directory / _FILE
    if directory.is_dir() and not path.exists():
        replace_file(path, json.dumps(collected.to_json()))


def read_collected(directory: Path) -> CollectedTests:
    """Read what the first worker wrote; nothing where the workers have no access to the directory."""
    path = directory / _FILE
    if not path.exists():
        return CollectedTests()
    return CollectedTests(**json.loads(path.read_text(encoding="utf-8")))


def _header_lines(session: Session, known: Sequence[tuple[Cell, type[ModelClassTests]]]) -> list[str]:
    """Describe the selected cells; nothing for a run without model classes."""
    if not known:
        return []
    cells = list({(cell.model.name, cell.id): cell for cell, _ in known}.values())
    real = [cell for cell in cells if cell.device != CLASS_LEVEL]
    devices = dict.fromkeys(cell.device.id for cell in real)
    dtypes = dict.fromkeys(cell.dtype for cell in real)
    spanned = [_models(cells), ", ".join(devices), ", ".join(dtypes)]
    lines = [f"hfaccel: {_counted(len(real), 'cell')}: {' x '.join(filter(None, spanned))}"]
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for cell in cells:
        groups[cell.weights.kind, cell.weights.reason][cell.model.name] = None
    for (kind, reason), names in groups.items():
        lines.append(f"hfaccel: weights {kind} ({reason}): {format_names(list(names), 6)}")
    if session.config.all_hardware:
        lines += [f"hfaccel: absent: {device} ({reason})" for device, reason in session.plan.absent.items()]
    if not session.config.resume:
        return [*lines, *session.resumed.header_lines((), resume=False)]
    keys = [((session.module_of(one), cell.id), session.decided_by(cell, one)) for cell, one in known]
    return [*lines, *session.resumed.header_lines(keys, resume=True)]


def _models(cells: Sequence[Cell]) -> str:
    """What is tested, with the weights: so that numbers of tiny weights are not taken for real ones."""
    weights = {cell.model.name: cell.weights.kind for cell in cells}
    if len(weights) == 1:
        return " ".join(f"{name} [{kind}]" for name, kind in weights.items())
    kinds = Counter(weights.values())
    return f"{_counted(len(weights), 'model')} [{', '.join(f'{kind}: {number}' for kind, number in kinds.items())}]"


def _counted(number: int, noun: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
