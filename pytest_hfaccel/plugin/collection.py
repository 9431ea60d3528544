"""Model classes -> test items, and what a run has collected."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest

from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import CLASS_LEVEL, DTYPES, Cell
from pytest_hfaccel.engine.plan import class_level
from pytest_hfaccel.plugin.keys import COLLECTED, SELECTED, SESSION
from pytest_hfaccel.plugin.model_class import ModelClassTests
from pytest_hfaccel.plugin.selection import mistakes_of_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.checks.base import Check
    from pytest_hfaccel.plugin.session import HfSession


EXTRA_CHECK = "extra_check"
EXTRA_SEPARATOR = "+"
"""Between cell id and check name in the id of an extra check; no cell id has it."""
POINT = "measuring_point"
_EXTRA_TEST = "extra"
_ID = re.compile(rf"(?P<cell>(?P<model>.+)-[a-z0-9.]+-(?:{'|'.join(DTYPES)}))(?:-b\d+(?:-s\d+)?)?")
"""The id of a test on a cell, perhaps at a point."""


def is_model_class(cls: object) -> TypeGuard[type[ModelClassTests]]:
    """Whether a collected class is a model class."""
    return isinstance(cls, type) and issubclass(cls, ModelClassTests)


def check_name(function_name: str) -> str:
    """The check a battery test runs: `parity` for `test_parity`."""
    return function_name.removeprefix("test_")


def read_id(parameter: str) -> tuple[str, str, str]:
    """Take the bracketed part of a test's id apart.

    Returns:
        The cell's id, the model's slug, and the name of an extra check (empty for the others).
    """
    cell, _, extra = parameter.partition(EXTRA_SEPARATOR)
    found = _ID.fullmatch(cell)
    return (found["cell"], found["model"], extra) if found else (cell, cell, extra)


def parametrize(metafunc: pytest.Metafunc, session: HfSession) -> None:
    """Give a test of a model class the cells it applies to.

    The parameter has session scope: pytest then keeps the tests of a cell together, also across modules, and the
    cell's lease is taken once.
    """
    if "cell" not in metafunc.fixturenames:
        return
    assert metafunc.cls is not None  # noqa: S101
    cells = session.cells_of(metafunc.cls)
    name = check_name(metafunc.function.__name__)
    if EXTRA_CHECK in metafunc.fixturenames:
        _parametrize_extra(metafunc, session, cells)
        return
    if name in session.checks:
        cells = _applicable(session, session.checks[name], cells)
    _parametrize_cells(metafunc, cells)
    if POINT in metafunc.fixturenames:
        _parametrize_points(metafunc, session, cells)


def has_cells(session: HfSession, model_class: type[ModelClassTests], function_name: str = "") -> bool:
    """Whether a model class, or one test of its battery, has anything to run on.

    What has not is not collected at all: a test that could have said nothing must not be counted as skipped.
    """
    cells = session.cells_of(model_class)
    name = check_name(function_name)
    if name == _EXTRA_TEST:
        return any(_applicable(session, session.checks[extra], cells) for extra in session.extra_checks)
    return bool(_applicable(session, session.checks[name], cells) if name in session.checks else cells)


def _applicable(session: HfSession, check: Check, cells: Sequence[Cell]) -> list[Cell]:
    from pytest_hfaccel.engine.runner import has_check

    candidates = class_level(cells) if check.level == "class" else cells
    return [cell for cell in candidates if has_check(cell, check, session.config)]


def _parametrize_cells(metafunc: pytest.Metafunc, cells: Sequence[Cell]) -> None:
    ids = [cell.id for cell in cells]
    metafunc.parametrize("cell", cells, ids=ids, indirect=True, scope="session")


def _parametrize_extra(metafunc: pytest.Metafunc, session: HfSession, cells: Sequence[Cell]) -> None:
    pairs = [
        (cell, name) for name in session.extra_checks for cell in _applicable(session, session.checks[name], cells)
    ]
    ids = [f"{cell.id}{EXTRA_SEPARATOR}{name}" for cell, name in pairs]
    metafunc.parametrize(("cell", EXTRA_CHECK), pairs, ids=ids, indirect=["cell"], scope="session")


def _parametrize_points(metafunc: pytest.Metafunc, session: HfSession, cells: Sequence[Cell]) -> None:
    """One test per point: pytest-benchmark compares, groups and plots tests, and times each of them once.

    The parameter has function scope: with that of the session pytest would sort by points, not by cells.
    """
    if not (session.config.batch_sizes or session.config.seq_lengths):
        return
    from pytest_hfaccel.engine.runner import points_of_run

    points = points_of_run([cell.model for cell in cells], session.config)
    metafunc.parametrize(POINT, points, ids=str, scope="function")


def point_of(item: pytest.Item) -> Point | None:
    """The point at which an item measures, if it measures."""
    return _parameter(item, POINT)  # type: ignore[no-any-return]


def _parameter(item: pytest.Item, name: str) -> Any:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(name) if callspec is not None else None


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell an item runs on, if it belongs to a model class."""
    if not is_model_class(getattr(item, "cls", None)):
        return None
    cell = _parameter(item, "cell")
    return cell if isinstance(cell, Cell) else None


def mark(items: Sequence[pytest.Item]) -> None:
    """Mark the items of model classes with `hf(...)`, for `-m`."""
    for item in items:
        cell = cell_of(item)
        if cell is None:
            continue
        level = "class" if cell.device == CLASS_LEVEL else "cell"
        item.add_marker(
            pytest.mark.hf(
                model=cell.model.name,
                architecture=cell.model.architecture,
                device=cell.device.kind,
                dtype=cell.dtype,
                weights=str(cell.weights.kind),
                check=item_check(item),
                level=level,
            )
        )


def item_check(item: pytest.Item) -> str:
    """The name under which an item's outcome is recorded."""
    extra = _parameter(item, EXTRA_CHECK)
    return str(extra) if extra else check_name(getattr(item, "originalname", item.name))


def count_per_cell(items: Sequence[pytest.Item]) -> None:
    """Note on every item how many selected items its class has on its cell, so that the end of a cell can be told."""
    cells = {item: (item.cls, cell.id) for item in items if (cell := cell_of(item))}  # type: ignore[attr-defined]
    selected = Counter(cells.values())
    for item, key in cells.items():
        item.stash[SELECTED] = selected[key]


def leave_to_others(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of classes that yield, where another collected class has the same check on the same cell."""
    taken = {_what(item) for item in items if cell_of(item) is not None and not _yields(item)}
    if not taken:
        return
    left = [item for item in items if _yields(item) and _what(item) in taken]
    if left:
        config.hook.pytest_deselected(items=left)
        gone = set(left)
        items[:] = [item for item in items if item not in gone]


def _yields(item: pytest.Item) -> bool:
    return cell_of(item) is not None and item.cls.yields  # type: ignore[attr-defined]


def _what(item: pytest.Item) -> tuple[str, str]:
    return str(cell_of(item)), item_check(item)


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


_NAMES_SHOWN = 6


def header_lines(session: HfSession, items: Sequence[pytest.Item]) -> list[str]:
    """Describe the selected cells; nothing for a run without model classes."""
    cells = list(dict.fromkeys(cell for item in items if (cell := cell_of(item))))
    if not cells:
        return []
    real = [cell for cell in cells if cell.device != CLASS_LEVEL]
    devices = dict.fromkeys(cell.device.id for cell in real)
    dtypes = dict.fromkeys(cell.dtype for cell in real)
    spanned = [_models(cells), ", ".join(devices), ", ".join(dtypes)]
    lines = [f"hfaccel: {counted(len(real), 'cell')}: {' x '.join(text for text in spanned if text)}"]
    lines += _weights_lines(cells)
    if session.config.all_hardware:
        lines += [f"hfaccel: not here: {device} ({reason})" for device, reason in session.plan.absent.items()]
    tested = {(session.module_of(item.cls), cell.id): (item, cell) for item in items if (cell := cell_of(item))}  # type: ignore[attr-defined]
    known = [(key, session.decided_by(cell, item.cls)) for key, (item, cell) in tested.items()]  # type: ignore[attr-defined]
    return [*lines, *session.recorded.header_lines(known, resume=bool(session.config.resume))]


def _models(cells: Sequence[Cell]) -> str:
    """What is tested, with the weights: nobody is to take the numbers of tiny weights for those of the real ones."""
    weights = {cell.model.name: cell.weights.kind for cell in cells}
    if len(weights) == 1:
        return " ".join(f"{name} [{kind}]" for name, kind in weights.items())
    kinds = Counter(weights.values())
    return f"{counted(len(weights), 'model')} [{', '.join(f'{kind}: {number}' for kind, number in kinds.items())}]"


def counted(number: int, noun: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _weights_lines(cells: Sequence[Cell]) -> list[str]:
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for cell in cells:
        groups[cell.weights.kind, cell.weights.reason][cell.model.name] = None
    lines = []
    for (kind, reason), names in groups.items():
        shown = ", ".join(list(names)[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        lines.append(f"hfaccel: weights {kind} ({reason}): {shown}{more}")
    return lines
