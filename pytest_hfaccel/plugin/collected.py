"""What a run has collected, and how workers of pytest-xdist tell it to the controller, which collects nothing itself.

xdist sends the controller node ids and no more. A worker writes the rest into a directory that the controller has made
for the run; all workers collect the same, so the first one writes for all. A worker on another machine has no such
directory: then the controller knows the node ids only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.atomic import replace_file
from pytest_hfaccel.plugin.header import header_lines
from pytest_hfaccel.plugin.keys import COLLECTED, SESSION
from pytest_hfaccel.plugin.parametrize import cell_of, item_check
from pytest_hfaccel.plugin.selection import mistakes_of_run

if TYPE_CHECKING:
    import pytest

    from pytest_hfaccel.plugin.session import HfSession

_FILE = "collected.json"


@dataclass(frozen=True)
class CollectedTests:
    """The tests of model classes that a run has collected, as plain data.

    Attributes:
        header: The lines that say what runs on what.
        usage_error: What is wrong with what the user asked for; empty when nothing is.
        cells: The identity (`pytest_hfaccel.engine.runner.identity`) of each cell in each module, and what decides its
            outcomes.
        tests: By node id, the index of the test's cell and the name of its check.
    """

    header: list[str] = field(default_factory=list)
    usage_error: str = ""
    cells: list[dict[str, Any]] = field(default_factory=list)
    tests: dict[str, tuple[int, str]] = field(default_factory=dict)

    def cell_and_check(self, nodeid: str) -> tuple[dict[str, Any], str] | None:
        """Return the identity of a test's cell and its check's name; `None` for a test of no model class."""
        if nodeid not in self.tests:
            return None
        index, check = self.tests[nodeid]
        return self.cells[index], check

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
        config.stash[COLLECTED] = _describe(config.stash[SESSION], session.items)
    return config.stash[COLLECTED]


def _describe(session: HfSession, items: Sequence[pytest.Item]) -> CollectedTests:
    from pytest_hfaccel.engine.runner import identity

    collected = CollectedTests(header_lines(session, items), mistakes_of_run(session))
    indices: dict[tuple[str, str], int] = {}
    for item in items:
        cell = cell_of(item)
        if cell is None:
            continue
        module = session.module_of(item.cls)  # type: ignore[attr-defined]
        index = indices.setdefault((module, cell.id), len(indices))
        if index == len(collected.cells):
            decided_by = session.decided_by(cell, item.cls)  # type: ignore[attr-defined]
            collected.cells.append({**identity(cell, module), "decided_by": decided_by})
        collected.tests[item.nodeid] = (index, item_check(item))
    return collected


def write_collected(directory: Path, collected: CollectedTests) -> None:
    """Write for the controller, unless another worker has."""
    path = directory / _FILE
    if directory.is_dir() and not path.exists():
        replace_file(path, json.dumps(asdict(collected)))


def read_collected(directory: Path) -> CollectedTests:
    """Read what the first worker wrote; nothing where the workers have no access to the directory."""
    path = directory / _FILE
    if not path.exists():
        return CollectedTests()
    return CollectedTests(**json.loads(path.read_text(encoding="utf-8")))
