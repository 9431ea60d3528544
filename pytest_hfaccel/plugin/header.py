"""The lines under "collected N items": what runs on what, with which weights and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_hfaccel.core.spec import CLASS_LEVEL, Cell
from pytest_hfaccel.plugin.parametrize import cell_of

if TYPE_CHECKING:
    from pytest_hfaccel.plugin.session import HfSession

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
