"""Model classes -> test items: which cells a test function runs on, and in which order."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest

from pytest_hfaccel.core.spec import CLASS_LEVEL, DTYPES, Cell
from pytest_hfaccel.engine.matrix import class_level
from pytest_hfaccel.plugin.keys import SELECTED
from pytest_hfaccel.plugin.model_class import ModelClassTests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_hfaccel.benchmark.points import Point
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
