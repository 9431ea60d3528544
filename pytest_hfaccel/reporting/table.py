"""The table model x device that ends a run's output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_hfaccel.core.results import CellResult, Status

_CLASS_LEVEL = "class"
_GAP = "  "
_LONGEST_LABEL = 44
_NOTHING = "-"


def model_device_rows(results: Sequence[CellResult]) -> list[list[str]]:
    """Return the table as rows of texts: a header, then one row per model and weights.

    The columns are the class level, then each device and dtype, in the order of their first result. A model that did
    not run on a device has `-` there.
    """
    columns = sorted({_column(result): None for result in results}, key=lambda column: column != _CLASS_LEVEL)
    cells: dict[str, dict[str, str]] = {}
    for result in results:
        cells.setdefault(_label(result), {})[_column(result)] = cell_text(result)
    body = [[label, *(row.get(column, _NOTHING) for column in columns)] for label, row in cells.items()]
    return [["model [weights]", *columns], *body]


def model_device_table(results: Sequence[CellResult], width: int = 100) -> str:
    """Return the table as text of at most `width` columns; devices that do not fit side by side go one below the other.

    A table is wider only where a single device's column does not fit beside the models.
    """
    rows = model_device_rows(results)
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n\n".join(_render(rows, widths, [0, *block]) for block in _blocks(widths, width))


def cell_text(result: CellResult) -> str:
    """Return what the table says of a cell: `12 passed`, `failed parity +2`, `unavailable`."""
    status = result.status
    passed = sum(check.status == Status.PASSED for check in result.checks)
    skipped = sum(check.status == Status.SKIPPED for check in result.checks)
    if status == Status.UNAVAILABLE:
        return str(status)
    if status == Status.SKIPPED:
        return f"{skipped} skipped" if skipped else "nothing ran"
    if status == Status.PASSED:
        return f"{passed} passed, {skipped} skipped" if skipped else f"{passed} passed"
    if status == Status.INCOMPLETE:
        return f"incomplete, {passed} passed"
    same = [check.name for check in result.checks if check.status == status]
    others = sum(check.status.is_bad for check in result.checks if check.status != status) + len(same) - 1
    return f"{str(status).replace('_', ' ')} {same[0]}" + (f" +{others}" if others else "")


def _label(result: CellResult) -> str:
    name = result.model
    room = _LONGEST_LABEL - len(result.weights) - 3
    if len(name) > room:  # the end of a path or an id says most
        name = "..." + name[3 - room :]
    return f"{name} [{result.weights}]"


def _column(result: CellResult) -> str:
    return _CLASS_LEVEL if result.device == _CLASS_LEVEL else f"{result.device} {result.dtype}"


def _blocks(widths: Sequence[int], width: int) -> list[list[int]]:
    """Deal the columns after the first to tables that are narrow enough."""
    blocks: list[list[int]] = [[]]
    used = widths[0]
    for index, column in enumerate(widths[1:], 1):
        if blocks[-1] and used + len(_GAP) + column > width:
            blocks.append([])
            used = widths[0]
        blocks[-1].append(index)
        used += len(_GAP) + column
    return blocks


def _render(rows: Iterable[Sequence[str]], widths: Sequence[int], columns: Sequence[int]) -> str:
    lines = [_GAP.join(row[index].ljust(widths[index]) for index in columns).rstrip() for row in rows]
    rule = _GAP.join("-" * widths[index] for index in columns)
    return "\n".join([lines[0], rule, *lines[1:]])
