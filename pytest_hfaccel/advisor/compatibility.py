"""The compatibility matrix: declared support, overwritten by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pytest_hfaccel.advisor.declared import FAMILIES, KINDS, declared_support
from pytest_hfaccel.advisor.measured import MeasuredCell
from pytest_hfaccel.advisor.support import RUNNING, Support

_BEST_FIRST = (*RUNNING, "failing", "unavailable")


class CompatibilityMatrix:
    """Which model runs on which kind of device, and how that is known.

    Args:
        cells: Measured cells, oldest first; of several of the same kind the last one stands.
    """

    def __init__(self, cells: Iterable[MeasuredCell] = ()) -> None:
        self._cells = list(cells)

    def entry(self, model: str, architecture: str | None, family: str, kind: str) -> Support:
        """Return what is known of a model on a kind of device.

        A cell of the model itself counts first, then one of its architecture class, then what is declared of its
        family. That a device was not there when it was tried says nothing about the model, so then the declaration
        stands, and the reason says so.
        """
        measured = self._last(kind, "model", model) or self._last(kind, "architecture", architecture)
        declared = declared_support(family, kind)
        if measured is None:
            return declared
        if measured.support == "unavailable" and declared.runs:
            return Support(declared.support, "declared", f"{declared.reason}; not measured: {measured.reason}")
        return measured

    def by_family(
        self, family_of: Callable[[str], str], families: Sequence[str] = FAMILIES
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return family -> kind of device -> entry, as plain JSON; measured entries count their cells.

        Args:
            family_of: Architecture class -> family.
            families: The families to list.
        """
        found: dict[tuple[str, str], list[Support]] = {}
        for cell in self._cells:
            support = cell.support()
            if support is not None:
                found.setdefault((family_of(cell.result.architecture), cell.kind), []).append(support)
        return {
            family: {kind: _summary(found.get((family, kind), []), family, kind) for kind in KINDS}
            for family in families
        }

    def _last(self, kind: str, field: str, value: str | None) -> Support | None:
        """The best entry of the last run that tried it: a dtype that fails does not speak for the others."""
        known = [
            support
            for cell in self._cells
            if value and cell.kind == kind and getattr(cell.result, field) == value and (support := cell.support())
        ]
        return _best([support for support in known if support.when == known[-1].when]) if known else None


def _best(entries: list[Support]) -> Support:
    return min(entries, key=lambda entry: _BEST_FIRST.index(entry.support))


def _summary(measured: list[Support], family: str, kind: str) -> dict[str, Any]:
    if not measured:
        return declared_support(family, kind).to_json()
    ran = sum(entry.runs for entry in measured)
    return {**_best(measured).to_json(), "cells_that_ran": ran, "cells_measured": len(measured)}
