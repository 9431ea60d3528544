"""Model classes that leave a model to a class that has something special to say about it."""

from __future__ import annotations

import pytest

from pytest_hfaccel.plugin.parametrize import cell_of, item_check


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
